"""The book of how fast a machine is."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from diffusers_helper.events import Finished, SectionDone, StageStarted, StepDone
from webui.eichi_utils.jobs.eta import Pace, Work
from webui.eichi_utils.jobs.speed_history import MAX_MACHINES, SpeedBook

CARD = "NVIDIA GeForce RTX 3060: models/FramePackI2V_HY"
WORK = Work(sections=4, steps=16, volume=50_000, teacache_threshold=0.4, passes=1)
PACE = Pace(
    overhead=30.0, computed_step=1e-4, skipped_step=1e-6, computed_share=0.5, decoding=2e-4, saving=1e-5
)

NO_TEACACHE = replace(WORK, teacache_threshold=None)
NONE_SKIPPED = replace(PACE, skipped_step=None, computed_share=1.0)


def a_machine(**changes: object) -> str:
    """A book of one machine, as text."""
    kept = {"overhead": 1, "computed_step": 1, "decoding": 1, "saving": 1, "shares": {}} | changes
    return json.dumps({"machines": {CARD: kept}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "speed.json"


def estimate(book: SpeedBook, work: Work = WORK, machine: str = CARD) -> float | None:
    return book.estimate(machine, work)


def test_nothing_is_known_before_the_first_job(path):
    assert estimate(SpeedBook(path)) is None
    assert not path.parent.exists()


def test_after_one_job_the_same_takes_as_long_also_after_a_restart(path):
    SpeedBook(path).learn(CARD, WORK, PACE)
    # 30 to begin, 64 steps of 2.525, 7 windows of 10, 4 sections of 0.5 to save
    assert estimate(SpeedBook(path)) == pytest.approx(30 + 64 * 2.525 + 70 + 2)


def test_another_machine_stays_unknown(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    assert estimate(book, machine="CPU") is None


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"sections": 8}, 30 + 128 * 2.525 + 150 + 4),
        ({"steps": 32}, 30 + 128 * 2.525 + 70 + 2),
        ({"volume": 25_000}, 30 + 64 * 2.525 / 2 + 35 + 1),
        ({"passes": 2}, 30 + 64 * 5.05 + 70 + 2),
        ({"teacache_threshold": None}, 30 + 64 * 5 + 70 + 2),
        ({"teacache_threshold": 0.3}, 30 + 64 * 2.525 + 70 + 2),
        ({"steps": 2}, 30 + 8 * 5 + 70 + 2),
    ],
)
def test_it_tells_of_other_jobs_too(path, change, seconds):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    assert estimate(book, replace(WORK, **change)) == pytest.approx(seconds)


def test_the_nearest_known_threshold_counts(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    book.learn(CARD, replace(WORK, teacache_threshold=0.1), replace(PACE, computed_share=0.9))
    for threshold, share in [(0.12, 0.9), (0.5, 0.5), (0.4, 0.5), (None, 1.0)]:
        pace = book.pace(CARD, replace(WORK, teacache_threshold=threshold))
        assert pace is not None
        assert pace.computed_share == share


def test_without_a_job_that_skipped_steps_it_counts_none_as_skipped(path):
    book = SpeedBook(path)
    book.learn(CARD, NO_TEACACHE, NONE_SKIPPED)
    assert estimate(book) == pytest.approx(30 + 64 * 5 + 70 + 2)


def test_a_job_without_teacache_takes_nothing_from_what_is_known_of_it(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    book.learn(CARD, NO_TEACACHE, NONE_SKIPPED)
    assert book.pace(CARD, WORK) == PACE


def test_new_jobs_count_half(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    book.learn(CARD, WORK, replace(PACE, computed_step=2e-4, computed_share=1.0))
    pace = book.pace(CARD, WORK)
    assert pace is not None
    assert (pace.computed_step, pace.computed_share) == (pytest.approx(1.5e-4), 0.75)


def test_it_follows_a_machine_that_became_much_slower(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    slow = replace(PACE, computed_step=1e-3)
    for _ in range(6):
        book.learn(CARD, WORK, slow)
    pace = book.pace(CARD, WORK)
    assert pace is not None
    assert pace.computed_step == pytest.approx(1e-3, rel=0.1)


def test_a_night_asleep_while_loading_is_not_taken_for_the_usual(path):
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    book.learn(CARD, WORK, replace(PACE, overhead=30_000.0))
    pace = book.pace(CARD, WORK)
    assert pace is not None
    assert pace.overhead <= 2.5 * PACE.overhead


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        '{"machines": []}',
        '{"machines": {"a": {}}}',
        a_machine(overhead=-1),
        a_machine(computed_step="1"),
        a_machine(decoding=None),
        a_machine(skipped_step=True),
        a_machine(shares={"x": 1}),
        a_machine(shares=[]),
        a_machine().replace("1", "1e999"),
    ],
)
def test_a_broken_book_is_set_aside_and_a_new_one_begun(path, content):
    path.parent.mkdir()
    path.write_text(content)
    book = SpeedBook(path)
    assert estimate(book) is None
    assert [notice.code for notice in book.notices] == ["file_set_aside"]
    book.learn(CARD, WORK, PACE)
    assert estimate(SpeedBook(path)) is not None


def test_a_book_without_a_skipped_step_can_be_read(path):
    path.parent.mkdir()
    path.write_text(a_machine())
    assert estimate(SpeedBook(path)) is not None


def test_a_book_that_cannot_be_written_is_no_failure(path, caplog):
    path.parent.mkdir()
    (path.parent / "speed.json.part").mkdir()  # in the way of the new file
    book = SpeedBook(path)
    book.learn(CARD, WORK, PACE)
    assert estimate(book) is not None
    assert "not kept" in caplog.text


def test_the_book_does_not_grow_for_ever(path):
    book = SpeedBook(path)
    for number in range(MAX_MACHINES + 5):
        book.learn(f"card {number}", replace(WORK, teacache_threshold=number / 100), PACE)
        book.learn(CARD, replace(WORK, teacache_threshold=number / 100), PACE)
    machines = json.loads(path.read_text())["machines"]
    assert len(machines) == MAX_MACHINES
    assert CARD in machines
    assert len(machines[CARD]["shares"]) == 20


def test_many_threads_lose_nothing(path):
    book = SpeedBook(path)
    threads = [threading.Thread(target=book.learn, args=[f"card {n}", WORK, PACE]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["machines"]) == 8


def test_a_jobs_clock_learns_and_the_next_one_knows(path):
    book = SpeedBook(path)
    work = Work(sections=1, steps=1, volume=10, teacache_threshold=None, passes=1)
    first = book.clock(CARD, work)
    first.event(0.0, StageStarted("images"))
    assert first.seconds_left(0.0) is None
    first.event(10.0, StageStarted("sampling", 0))
    first.event(15.0, StepDone(0, 1, 1, 1, True, None))
    first.event(15.0, StageStarted("decoding", 0))
    first.event(18.0, SectionDone(0, 1, 33))
    first.event(18.0, StageStarted("saving"))
    first.event(19.0, Finished(None, 33, 1.1, 64, 64, 19.0))
    second = book.clock(CARD, work)
    second.event(100.0, StageStarted("images"))
    assert second.seconds_left(100.0) == pytest.approx(19.0)


def test_a_job_on_an_unknown_machine_has_a_clock_that_learns_nothing(path):
    clock = SpeedBook(path).clock(None, WORK)
    clock.event(0.0, StageStarted("sampling", 0))
    clock.event(1.0, StepDone(0, 4, 1, 16, True, None))
    clock.event(2.0, Finished(None, 33, 1.1, 64, 64, 2.0))
    assert clock.seconds_left(2.0) == 0.0
    assert not path.exists()

"""The remaining time of a job, against jobs whose true end is known."""

import json
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from diffusers_helper.events import Finished, Resumed, SectionDone, StageProgress, StageStarted, StepDone
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from webui.eichi_utils.jobs.eta import TYPICAL, Eta, Part, Speed, SpeedHistory, job_parts

PREVIEW = np.zeros((1, 1, 3), np.uint8)
FINISHED = Finished(None, 1, 1.0, 64, 64, 1.0)
DECODED = (1000, 1200, 1200, 2100)
TRUE = Speed(20.0, computed_step=4e-3, decoding=4e-3, saving=3 / 5500, skipped_step=4e-4)
WHOLE = 20 + 4 * 16 * 4 + 4e-3 * 5500 + 3
HALF = 20 + 2 * 16 * 4 + 4e-3 * 3300 + 3
HALF_A_SECTION = [StageStarted("sampling", 2), *[StepDone(2, 4, 1, 16, True, PREVIEW)] * 8]
ALL = (True,) * 16
EVERY_OTHER = tuple(number in (0, 15) or number % 2 == 0 for number in range(16))
NAPS = {1: 19, 2: 20, 8: 26, 42: 60, 34: 36, 51: 53}
"""The part in which the computer is asleep, a step or decoding, and that from which on nothing shows it."""
SIZES = [(1, 1), (1, 2), (2, 1), (1, 16), (120, 1)]  # sections, and steps of each


def parts(pattern: tuple[bool, ...] = ALL, decoded: tuple[int, ...] = DECODED) -> list[Part]:
    """The parts of a job in which these steps of a section are computed."""
    steps = [("computed_step" if all(pattern) else "teacache_step", 1000)] * len(pattern)
    sections = (part for values in decoded for part in (*steps, ("decoding", values)))
    return [("overhead", 1), *sections, ("saving", sum(decoded))]


def follow(eta, speed=TRUE, pattern=ALL, delayed=-1, delay=0.0):
    """The part, the answers and the true seconds left after each event, and the remaining time at the end."""
    decoded = [values for figure, values in eta.parts if figure == "decoding"]
    events = [(0, StageStarted("prompt")), (speed.overhead, StageStarted("compiling"))]
    for section, values in enumerate(decoded):
        events.append((0, StageStarted("sampling", section)))
        for step, computed in enumerate(pattern, 1):
            seconds = 1000 * (speed.computed_step if computed else speed.skipped_step)
            events.append((seconds, StepDone(section, 4, step, 16, computed, PREVIEW)))
        events.append((0, StageStarted("decoding", section)))
        events.append((speed.decoding * values, SectionDone(section, 4, 33)))
    events += [(0, StageStarted("saving")), (speed.saving * sum(decoded), FINISHED)]
    now, whole, moments = 0.0, sum(seconds for seconds, _ in events) + delay, []
    for seconds, event in events:
        now += seconds + (delay if seconds and eta.present == delayed else 0)
        eta = eta.apply(event, now)
        moments.append((eta.present, *eta.at(now), whole - now))
    return moments[:-1], eta


def worst(moments, since=0):
    """The largest relative error of the seconds from a part on; three seconds are forgiven."""
    return max((abs(left - true) - 3) / max(true, 1) for part, _, left, true in moments if part >= since)


@pytest.mark.parametrize(
    ("eta", "course", "since", "limit"),
    [
        (Eta(parts(EVERY_OTHER), replace(TRUE, computed_share=9 / 16)), {"pattern": EVERY_OTHER}, 0, 0.15),
        (Eta(parts(), TRUE), {"speed": replace(TRUE, computed_step=12e-3)}, 3, 0.1),  # slower today
        *((Eta(parts(), TRUE), {"delayed": nap, "delay": 3600.0}, NAPS[nap], 0.05) for nap in NAPS),
        *((Eta(parts(ALL[:n], (1000,) * m), TRUE), {"pattern": ALL[:n]}, 0, 0.1) for m, n in SIZES),
    ],
)
def test_after_an_earlier_job_it_is_near(eta, course, since, limit):
    assert worst(follow(eta, **course)[0], since) < limit


def test_after_the_same_job_it_is_exact():
    for _, done, left, true in follow(Eta(parts(), TRUE))[0]:
        assert done == pytest.approx(1 - true / WHOLE, abs=0.005)
        assert left == pytest.approx(true, abs=1.0)  # of what has not ended, something is left


@pytest.mark.parametrize(
    ("events", "waited", "left", "undone"),
    [
        ([], 5, WHOLE - 5, WHOLE - 5),
        ([StageStarted("sampling", 0)], 0, WHOLE - 20, WHOLE - 20),
        ([StageStarted("decoding", 3)], 8, 3.4, 3.4),
        ([StageProgress(0.5), StageStarted("decoding", 3)], 8, 3.4, 3.4),  # that of another stage
        ([StageStarted("decoding", 3)], 12, 3.6, 3.6),  # late: it does not end at once
        ([Resumed(2, 4, 69)], 0, HALF, HALF),
        ([Resumed(2, 4, 69), StageStarted("decoding", 2)], 0, HALF - 84, HALF - 84),  # it was sampled before
        ([Resumed(4, 4, 133)], 20, 4, 4),
        ([*HALF_A_SECTION, StageStarted("sampling", 2)], 0, HALF - 20, HALF - 20),  # it is sampled again
    ],
)
def test_what_is_left_by_the_speed_of_an_earlier_job(events, waited, left, undone):
    eta, now = Eta(parts(), TRUE), 20.0
    for event in events:
        now += 4 * isinstance(event, StepDone)
        eta = eta.apply(event, now)
    assert eta.at(eta.mark + waited) == pytest.approx((1 - undone / WHOLE, left))


def test_a_finished_job_is_learned_with_the_speed_that_it_had():
    learned: list[Speed] = []
    for earlier in (TYPICAL, replace(TYPICAL, overhead=1.0)):
        eta = Eta(parts(EVERY_OTHER), earlier, learned.append)
        follow(eta, pattern=EVERY_OTHER, delayed=18, delay=3600.0)[1].remember()
    eta.apply(Resumed(4, 4, 133), 0.0).apply(FINISHED, 5.0).remember()  # no step is its own
    assert [speed.overhead for speed in learned] == [20, 4], "it may have slept while it loaded"
    assert astuple(learned[0])[:5] == pytest.approx(astuple(TRUE)[:5])
    assert learned[0].computed_share == pytest.approx(9 / 16, abs=0.01)


def test_the_parts_are_what_is_computed_and_what_is_decoded():
    request = GenerationRequest(start_image="a", seconds=2, guidance_scale=2)
    for count, teacache, kind in ((10, False, "computed"), (2, True, "computed"), (3, True, "teacache")):
        steps, decoded = [(f"{kind}_step", 2 * 9 * 96)] * count, [("decoding", n * 96) for n in (9, 19)]
        wanted = [("overhead", 1), *steps, decoded[0], *steps, decoded[1], ("saving", 28 * 96)]
        assert (
            job_parts(replace(request, steps=count, teacache=teacache), make_plan(request), 64, 96) == wanted
        )


# -- the speed of each machine ---------------------------------------------------------------------------

GPU = "NVIDIA GeForce RTX 3060: models/FramePackI2V_HY"
SPEED = Speed(30.0, computed_step=1e-4, decoding=2e-4, saving=1e-5, skipped_step=1e-6, computed_share=0.4)
OLD = {"overhead": 30, "computed_step": 1e-4, "decoding": 2e-4, "saving": 1e-5, "shares": {"0.4": 0.4}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "speed.json"


def test_the_last_job_is_remembered_after_a_restart(path):
    history = SpeedHistory(path)
    assert (history.speeds, history.notices, path.exists()) == ({}, [], False)
    for speed in (replace(SPEED, overhead=1.0), SPEED):
        history.learn(GPU, speed)
    assert history.speeds == SpeedHistory(path).speeds == {GPU: SPEED}


@pytest.mark.parametrize(
    ("known", "asked", "is_known"),
    [
        ("RTX: /old/webui/hf_download/a/b", "RTX: /new place/webui/hf_download/a/b", True),
        ("RTX: D:\\app\\hf_download\\a\\b", "RTX: E:\\app\\hf_download\\a\\b", True),
        ("RTX: D:\\app\\hf_download\\a\\b", "RTX: /mnt/app/hf_download/a/b", True),
        ("RTX: /old/demo_models/a/b", "RTX: /old/hf_download/a/b", False),
        ("RTX with 4 GB: /old/hf_download/a/b", "RTX: /old/hf_download/a/b", False),
        ("RTX 3060: /old/hf_download/a/b", "RTX 4090: /old/hf_download/a/b", False),
    ],
)
def test_a_machine_is_known_after_its_models_were_moved(path, known, asked, is_known):
    history = SpeedHistory(path)
    history.learn(known, SPEED)
    assert SpeedHistory(path).find(asked) == (SPEED if is_known else None)


@pytest.mark.parametrize(
    ("skipped", "step"), [({}, 0), ({"skipped_step": None}, 0), ({"skipped_step": 2}, 2)]
)
def test_a_file_of_the_version_before_is_read(path, skipped, step):
    path.write_text(json.dumps({"machines": {GPU: OLD | skipped}}))
    assert SpeedHistory(path).speeds == {GPU: replace(SPEED, skipped_step=step, computed_share=0.4)}


BROKEN = [{"overhead": -1}, {"overhead": 10**400}, {"computed_step": 0}, {"decoding": "x"}, {"saving": []}]
BROKEN_MACHINES = [[], {"a": []}, {"a": {}}, *({GPU: OLD | broken} for broken in BROKEN)]


@pytest.mark.parametrize("content", [{}, *({"machines": machines} for machines in BROKEN_MACHINES)])
def test_a_broken_file_is_set_aside(path, content):
    path.write_text(json.dumps(content))
    history = SpeedHistory(path)
    assert (history.speeds, [notice.code for notice in history.notices]) == ({}, ["file_set_aside"])
    history.learn(GPU, SPEED)
    assert SpeedHistory(path).speeds == {GPU: SPEED}


def test_a_file_that_cannot_be_written_is_no_failure(path, caplog):
    path.with_name("speed.json.part").mkdir()  # in the way of the new file
    history = SpeedHistory(path)
    history.learn(GPU, SPEED)
    assert history.speeds == {GPU: SPEED}
    assert "not kept" in caplog.text

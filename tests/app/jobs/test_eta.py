"""The remaining time of a job, against jobs whose true end is known."""

import itertools
import json
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from diffusers_helper.events import Event, Finished, Resumed, SectionDone, StageStarted, StepDone
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from webui.eichi_utils.jobs.eta import TYPICAL, TYPICAL_DEMO, Eta, JobSize, Speed, SpeedHistory, job_size

PREVIEW = np.zeros((1, 1, 3), np.uint8)
SIZE = JobSize(steps=16, step_values=1000, decoded_values=(1000, 1200, 1200, 2100), skips_steps=False)
TEACACHE = replace(SIZE, skips_steps=True)
TRUE = Speed(20.0, computed_step=4e-3, decoding=4e-3, saving=3 / 5500, skipped_step=4e-4)
EVERY_OTHER = tuple(number in (0, 15) or number % 2 == 0 for number in range(16))


@dataclass(frozen=True)
class Course:
    """The course of a job: the true speed, which steps are computed, and delays by (section, step)."""

    size: JobSize = SIZE
    speed: Speed = TRUE
    pattern: tuple[bool, ...] = (True,) * 16
    delays: dict[tuple[int, int], float] = field(default_factory=dict)

    def events(self) -> list[tuple[float, Event]]:
        decoded, steps, speed = self.size.decoded_values, self.size.steps, self.speed
        now = speed.overhead
        happened: list[tuple[float, Event]] = [(0, StageStarted("prompt")), (0, StageStarted("compiling"))]
        for section, values in enumerate(decoded):
            happened.append((now, StageStarted("sampling", section)))
            for step, computed in enumerate(self.pattern, 1):
                seconds = speed.computed_step if computed else speed.skipped_step
                now += seconds * self.size.step_values + self.delays.get((section, step), 0)
                happened.append((now, StepDone(section, len(decoded), step, steps, computed, PREVIEW)))
            happened.append((now, StageStarted("decoding", section)))
            now += speed.decoding * values + self.delays.get((section, steps + 1), 0)
            happened.append((now, SectionDone(section, len(decoded), 33)))
        last = now + speed.saving * sum(decoded)
        return [*happened, (now, StageStarted("saving")), (last, Finished(None, 1, 1.0, 64, 64, 1.0))]


@dataclass(frozen=True)
class Moment:
    """A moment after an event: the position, the answer, and the truth."""

    position: tuple[int, int]
    left: float | None
    fraction: float
    true: float

    @property
    def error(self) -> float:
        """The relative error of the seconds, of which three are forgiven."""
        assert self.left is not None
        return max(abs(self.left - self.true) - 3, 0) / max(self.true, 1)


def follow(course: Course, eta: Eta) -> tuple[list[Moment], Eta]:
    """The moments after each event, and the remaining time at the end."""
    moments, happened = [], course.events()
    for now, event in happened:
        eta = eta.apply(event, now)
        true = happened[-1][0] - now
        moments.append(
            Moment(
                divmod(max(eta.part - 1, 0), course.size.steps + 1),
                eta.seconds_left(now),
                eta.fraction(now),
                true,
            )
        )
    return moments[:-1], eta


def known(course: Course) -> Eta:
    """The remaining time of a job on a machine that has made this one before."""
    return Eta(course.size, follow(course, Eta(course.size))[1].speed)


@pytest.mark.parametrize("pattern", [(True,) * 16, EVERY_OTHER], ids=["all steps", "TeaCache"])
@pytest.mark.parametrize(
    ("typical", "speed"),
    [
        (TYPICAL, TRUE),
        (TYPICAL, replace(TRUE, decoding=8e-3)),
        (TYPICAL_DEMO, replace(TRUE, decoding=4e-2, saving=10 / 5500)),
        (TYPICAL_DEMO, replace(TRUE, decoding=6e-2, saving=10 / 5500)),
    ],
)
def test_a_first_job_is_near_from_its_third_step_on(typical, speed, pattern):
    course = Course(SIZE if all(pattern) else TEACACHE, speed, pattern)
    moments, _ = follow(course, Eta(course.size, typical))
    assert [moment.left for moment in moments if moment.position <= (0, 1)] == [None] * 4
    after = [moment for moment in moments if moment.position >= (0, 3)]
    assert max(moment.error for moment in after) < 0.3
    assert all(abs(moment.fraction - (1 - moment.true / course.events()[-1][0])) < 0.2 for moment in after)


@pytest.mark.parametrize("pattern", [(True,) * 16, EVERY_OTHER], ids=["all steps", "TeaCache"])
def test_after_an_earlier_job_it_is_near_from_the_beginning(pattern):
    course = Course(SIZE if all(pattern) else TEACACHE, pattern=pattern)
    moments, _ = follow(course, known(course))
    assert max(moment.error for moment in moments) < 0.15


def test_seconds_and_fraction_agree_and_neither_turns_back():
    course = Course()
    moments, _ = follow(course, known(course))
    whole = course.events()[-1][0]
    assert all(moment.fraction == pytest.approx(1 - moment.left / whole, abs=1e-6) for moment in moments)
    assert all(a.fraction <= b.fraction + 1e-9 for a, b in itertools.pairwise(moments))
    assert all(a.left >= b.left - 1e-9 for a, b in itertools.pairwise(moments))


@pytest.mark.parametrize("delayed", [(0, 1), (0, 2), (0, 8), (2, 8), (1, 17), (2, 17)])
def test_an_hour_asleep_changes_nothing_afterwards(delayed):
    course = Course(delays={delayed: 3600.0})
    moments, _ = follow(course, known(Course()))
    section, step = delayed
    after = [moment for moment in moments if moment.position > (section + 1, step % 17)]
    assert len(after) > 5
    assert max(moment.error for moment in after) < 0.05


def test_a_slow_first_step_is_not_taken_for_the_speed():
    moments, _ = follow(Course(delays={(0, 1): 40.0}), Eta(SIZE))
    shown = [moment for moment in moments if moment.left is not None]
    assert shown[0].position == (0, 2)
    assert shown[0].error < 0.3


def test_a_machine_slower_today_is_followed_in_two_steps():
    moments, _ = follow(Course(speed=replace(TRUE, computed_step=12e-3)), known(Course()))
    assert all(moment.error < 0.1 for moment in moments if moment.position >= (0, 2))


def test_late_work_is_expected_to_need_as_long_again():
    eta = known(Course()).apply(StageStarted("decoding", 3), 0.0)
    expected = [eta.seconds_left(now) for now in (0.0, 8.0, 8.4, 12.0)]
    assert expected == pytest.approx([11.4, 3.4, 3.0, 6.6])
    assert eta.fraction(12.0) == eta.fraction(8.4)


def test_loading_counts_down_and_is_no_step():
    eta = known(Course())
    whole = eta.seconds_left(0.0)
    assert eta.seconds_left(5.0) == pytest.approx(whole - 5)
    eta = eta.apply(StageStarted("sampling", 0), 60.0)
    assert eta.seconds_left(60.0) == pytest.approx(whole - 20)


def test_a_resumed_job_counts_only_what_is_left():
    fresh = known(Course())
    resumed = fresh.apply(Resumed(2, 4, 69), 0.0)
    ahead = 20 + 32 * 4 + 4e-3 * 3300 + 3
    assert resumed.seconds_left(0.0) == pytest.approx(ahead)
    assert resumed.fraction(0.0) == pytest.approx(1 - ahead / fresh.seconds_left(0.0))
    assert resumed.apply(Resumed(4, 4, 133), 0.0).seconds_left(20.0) == pytest.approx(3)


def test_a_section_that_is_sampled_once_more_goes_back():
    eta = known(Course()).apply(StageStarted("sampling", 1), 0.0)
    before = eta.seconds_left(0.0)
    for step in range(1, 9):
        eta = eta.apply(StepDone(1, 4, step, 16, True, PREVIEW), 4.0 * step)
    assert eta.apply(StageStarted("sampling", 1), 32.0).seconds_left(32.0) == pytest.approx(before)


@pytest.mark.parametrize(("sections", "steps"), [(1, 1), (1, 2), (2, 1), (1, 16), (120, 1)])
def test_jobs_of_any_size_are_followed(sections, steps):
    size = JobSize(steps, 1000, (1000,) * sections, skips_steps=True)
    course = Course(size, replace(TRUE, computed_share=1.0), (True,) * steps)
    moments, _ = follow(course, Eta(size, course.speed))
    assert max(moment.error for moment in moments) < 0.1


def test_a_finished_job_is_learned_with_the_speed_that_it_had():
    learned: list[Speed] = []
    course = Course(TEACACHE, pattern=EVERY_OTHER, delays={(1, 1): 3600.0})
    _, eta = follow(course, Eta(TEACACHE, learn=learned.append))
    eta.remember()
    (speed,) = learned
    assert astuple(speed)[:5] == pytest.approx(astuple(course.speed)[:5])
    assert speed.computed_share == pytest.approx(9 / 16, abs=0.01)


def test_a_job_without_a_step_of_its_own_is_not_learned():
    learned: list[Speed] = []
    eta = Eta(SIZE, learn=learned.append).apply(Resumed(4, 4, 133), 0.0)
    eta.apply(Finished(None, 1, 1.0, 64, 64, 1.0), 5.0).remember()
    Eta(SIZE).remember()
    assert learned == []


def test_the_size_counts_what_is_computed_and_what_is_decoded():
    request = GenerationRequest(start_image="a", seconds=2, steps=10, guidance_scale=2, teacache=False)
    assert job_size(request, make_plan(request), 64, 96) == JobSize(10, 2 * 9 * 96, (9 * 96, 19 * 96), False)


# -- the speed of each machine ---------------------------------------------------------------------------

GPU = "NVIDIA GeForce RTX 3060: models/FramePackI2V_HY"
SPEED = Speed(30.0, computed_step=1e-4, decoding=2e-4, saving=1e-5, skipped_step=1e-6, computed_share=0.4)
OLD = {"overhead": 30, "computed_step": 1e-4, "decoding": 2e-4, "saving": 1e-5, "shares": {"0.4": 0.4}}


def of_machine(**changes: object) -> bytes:
    return json.dumps({"machines": {GPU: OLD | changes}}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "speed.json"


def test_the_last_job_is_remembered_after_a_restart(path):
    assert SpeedHistory(path).speed(GPU) is None
    assert not path.parent.exists()
    history = SpeedHistory(path)
    for speed in (replace(SPEED, overhead=1.0), SPEED):
        history.start_eta(GPU, SIZE).learn(speed)
    again = SpeedHistory(path)
    assert (again.speed(GPU), again.speed("CPU"), again.speed(None)) == (SPEED, None, None)
    assert again.start_eta(GPU, SIZE).known == SPEED


def test_an_unknown_machine_starts_with_a_typical_speed(path):
    assert SpeedHistory(path).start_eta(GPU, SIZE, TYPICAL_DEMO).known == TYPICAL_DEMO
    assert SpeedHistory(path).start_eta(None, SIZE).learn is None


@pytest.mark.parametrize("skipped", [{}, {"skipped_step": None}, {"skipped_step": 1e-6}])
def test_a_file_of_the_version_before_is_read(path, skipped):
    path.parent.mkdir()
    path.write_bytes(of_machine(**skipped))
    step = skipped.get("skipped_step") or 0.0
    assert SpeedHistory(path).speed(GPU) == replace(SPEED, skipped_step=step, computed_share=0.5)


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"\xff", b"[" * 100_000, b"{}", b'{"machines": []}'),
        *(b'{"machines": {"a": []}}', b'{"machines": {"a": {}}}'),
        *(of_machine(overhead=-1), of_machine(computed_step=0)),
        *(of_machine(decoding="x"), of_machine(saving=[]), of_machine().replace(b"30", b"1e999")),
    ],
)
def test_a_broken_file_is_replaced_by_the_next_job(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    history = SpeedHistory(path)
    assert history.speed(GPU) is None
    history.learn(GPU, SPEED)
    assert SpeedHistory(path).speed(GPU) == SPEED


def test_a_file_that_cannot_be_written_is_no_failure(path, caplog):
    path.parent.write_text("a file stands here")
    history = SpeedHistory(path)
    history.learn(GPU, SPEED)
    assert history.speed(GPU) == SPEED
    assert "not kept" in caplog.text

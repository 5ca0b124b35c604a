"""The clock of a running job, against jobs whose true end is known."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from diffusers_helper.events import Event, Finished, SectionDone, StageStarted, StepDone
from webui.eichi_utils.jobs.eta import Pace, TimeLeft, Work

PREVIEW = np.zeros((1, 1, 3), np.uint8)
WORK = Work(sections=6, steps=16, volume=1000, teacache_threshold=None, passes=1)
TEACACHE = Work(sections=6, steps=16, volume=1000, teacache_threshold=0.4, passes=1)
FAST_AND_SLOW = [number in (0, 15) or number % 2 == 0 for number in range(16)]


@dataclass(frozen=True)
class Course:
    """How a job goes: its times in seconds, which steps are computed, and naps (at a step: seconds)."""

    work: Work = WORK
    overhead: float = 20.0
    computed: float = 4.0
    skipped: float = 0.4
    window: float = 9.0
    saving: float = 3.0
    pattern: tuple[bool, ...] = (True,) * 16
    first_step: float = 0.0
    naps: dict[tuple[int, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """A moment after an event: the clock's answer, and the truth."""

    section: int
    step: int
    now: float
    told: float | None
    true: float


def events(course: Course) -> list[tuple[float, Event]]:
    now = 1000.0
    happened: list[tuple[float, Event]] = [(now, StageStarted("images"))]
    now += course.overhead
    sections, steps = course.work.sections, course.work.steps
    for section in range(sections):
        happened.append((now, StageStarted("sampling", section)))
        for step in range(1, steps + 1):
            is_computed = course.pattern[step - 1]
            now += course.computed if is_computed else course.skipped
            now += course.first_step if (section, step) == (0, 1) else 0
            now += course.naps.get((section, step), 0)
            happened.append((now, StepDone(section, sections, step, steps, is_computed, PREVIEW)))
        happened.append((now, StageStarted("decoding", section)))
        now += course.window * (1 if section == 0 else 2) + course.naps.get((section, steps + 1), 0)
        happened.append((now, SectionDone(section, sections, 33)))
    happened.append((now, StageStarted("saving")))
    happened.append((now + course.saving, Finished(None, 1, 1.0, 64, 64, 1.0)))
    return happened


def follow(course: Course, clock: TimeLeft) -> list[Moment]:
    """What the clock tells just after each event, beside the truth."""
    moments = []
    happened = events(course)
    section = step = 0
    for now, event in happened:
        clock.event(now, event)
        if isinstance(event, StepDone):
            section, step = event.section, event.step
        elif isinstance(event, SectionDone):
            section, step = event.section + 1, 0
        moments.append(Moment(section, step, now, clock.seconds_left(now), happened[-1][0] - now))
    return moments


def error(moment: Moment, slack: float = 0.0) -> float:
    """How wrong the clock is, as a part of the truth; `slack` seconds are forgiven."""
    assert moment.told is not None
    return max(abs(moment.told - moment.true) - slack, 0) / max(moment.true, 1)


def learnt(course: Course) -> Pace:
    clock = TimeLeft(course.work)
    follow(course, clock)
    return clock.pace()


def test_at_a_constant_pace_it_is_exact_after_the_first_section():
    moments = [moment for moment in follow(Course(), TimeLeft(WORK)) if moment.section >= 1]
    assert len(moments) > 80
    assert max(error(moment, slack=Course().saving) for moment in moments) < 0.05


def test_with_fast_and_slow_steps_it_is_near_from_the_second_section_on():
    course = Course(TEACACHE, pattern=tuple(FAST_AND_SLOW))
    moments = [moment for moment in follow(course, TimeLeft(TEACACHE)) if moment.section >= 1]
    assert max(error(moment, slack=course.saving) for moment in moments) < 0.25


def test_with_sections_that_skip_differently_it_is_still_near():
    slower = {(section, step): 3.6 for section in (1, 3, 5) for step in (2, 4)}
    course = Course(TEACACHE, pattern=tuple(FAST_AND_SLOW), naps=slower)  # as if two more were computed
    moments = [moment for moment in follow(course, TimeLeft(TEACACHE)) if moment.section in (2, 3, 4)]
    assert max(error(moment, slack=course.saving) for moment in moments) < 0.25


@pytest.mark.parametrize("nap", [(0, 1), (0, 2), (0, 8), (2, 8), (0, 17), (1, 17), (3, 17)])
def test_an_hour_of_sleep_in_the_middle_does_not_poison_the_rest(nap):
    course = Course(naps={nap: 3600.0})
    until = max(moment.true for moment in follow(course, TimeLeft(WORK)) if moment.true < 3600)
    awake = [m for m in follow(course, TimeLeft(WORK)) if m.true <= until and m.told is not None]
    assert len(awake) > 30
    assert max(error(moment, slack=course.saving) for moment in awake) < 0.15


def test_a_slow_first_step_is_not_taken_for_the_pace():
    moments = follow(Course(first_step=40.0), TimeLeft(WORK))
    told = [moment for moment in moments if moment.told is not None]
    assert (told[0].section, told[0].step) == (0, 2)
    assert error(told[0]) < 0.15


def test_without_earlier_jobs_it_says_nothing_before_it_has_a_pace():
    moments = follow(Course(), TimeLeft(WORK))
    assert [m.told for m in moments if (m.section, m.step) <= (0, 1)] == [None] * 3


def test_the_first_guess_is_already_near():
    moments = follow(Course(), TimeLeft(WORK))
    assert max(error(moment, slack=3) for moment in moments if moment.told is not None) < 0.2


def test_with_earlier_jobs_it_knows_from_the_beginning():
    moments = follow(Course(), TimeLeft(WORK, learnt(Course())))
    assert max(error(moment) for moment in moments) < 0.02


def test_with_earlier_jobs_fast_and_slow_steps_are_known_from_the_beginning():
    course = Course(TEACACHE, pattern=tuple(FAST_AND_SLOW))
    moments = follow(course, TimeLeft(TEACACHE, learnt(course)))
    assert max(error(moment, slack=3) for moment in moments) < 0.1


def test_where_the_machine_is_slower_today_it_follows_within_three_steps():
    moments = follow(Course(computed=12.0), TimeLeft(WORK, learnt(Course())))
    assert all(error(m) < 0.2 for m in moments if (m.section, m.step) >= (0, 3))


def test_between_two_events_it_counts_down():
    clock = TimeLeft(WORK, learnt(Course()))
    clock.event(0.0, StageStarted("images"))
    first = clock.seconds_left(0.0)
    assert first is not None
    assert clock.seconds_left(5.0) == pytest.approx(first - 5)
    clock.event(20.0, StageStarted("sampling", 0))
    assert clock.seconds_left(23.0) == pytest.approx(first - 23)


def test_a_step_that_takes_longer_than_expected_stands_still_and_goes_on():
    clock = TimeLeft(WORK, learnt(Course()))
    clock.event(0.0, StageStarted("sampling", 0))
    late = clock.seconds_left(4.0)
    assert clock.seconds_left(4000.0) == pytest.approx(late)


def test_at_a_constant_pace_it_never_goes_up_after_the_first_section():
    told = [m.told for m in follow(Course(), TimeLeft(WORK)) if m.section >= 1 and m.told is not None]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(told))


def test_it_is_never_negative_and_ends_at_nothing():
    course = Course(naps={(2, 3): 500.0})
    clock = TimeLeft(WORK, learnt(Course()))
    told = [moment.told for moment in follow(course, clock)]
    assert min(value for value in told if value is not None) >= 0
    assert told[-1] == 0.0
    assert clock.seconds_left(10**9) == 0.0


@pytest.mark.parametrize(("sections", "steps"), [(1, 1), (1, 2), (2, 1), (1, 16), (120, 1)])
def test_jobs_of_any_size_are_followed(sections, steps):
    course = Course(Work(sections, steps, 1000, 0.4, 1), pattern=(True,) * steps)
    moments = follow(course, TimeLeft(course.work, learnt(course)))
    assert max(error(moment, slack=3) for moment in moments) < 0.1


def test_a_jobs_pace_is_what_it_was():
    course = Course(Work(6, 16, 1000, 0.4, 2), pattern=tuple(FAST_AND_SLOW), naps={(1, 1): 3600.0})
    pace = learnt(course)
    assert pace.overhead == pytest.approx(20)
    assert pace.computed_step == pytest.approx(4.0 / 2000)
    assert pace.skipped_step == pytest.approx(0.4 / 2000)
    assert pace.computed_share == 9 / 16
    assert pace.decoding == pytest.approx(9.0 / 1000)
    assert pace.saving == pytest.approx(3.0 / 6000)


def test_a_pace_gives_the_length_of_the_job_that_it_came_from():
    course = Course(TEACACHE, pattern=tuple(FAST_AND_SLOW))
    happened = events(course)
    assert learnt(course).seconds(TEACACHE) == pytest.approx(happened[-1][0] - happened[0][0])


def test_only_a_finished_job_is_learnt():
    learnt_paces: list[Pace] = []
    clock = TimeLeft(WORK, learn=learnt_paces.append)
    happened = events(Course())
    for now, event in happened[:-1]:
        clock.event(now, event)
    assert learnt_paces == []
    clock.event(*happened[-1])
    assert learnt_paces == [clock.pace()]

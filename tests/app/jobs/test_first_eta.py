"""The remaining time of first jobs by a simulated clock: it is honest from the third step on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from diffusers_helper.events import (
    Event,
    Finished,
    Notice,
    Planned,
    SectionDone,
    StageProgress,
    StageStarted,
    StepDone,
)
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import TILE_BLEND, TILE_STRIDE, pixel_frames, tile_starts
from webui.eichi_utils.jobs.eta import TYPICAL, TYPICAL_DEMO, Eta, Speed, job_parts
from webui.eichi_utils.jobs.job import Job, JobSpec, apply

PREVIEW = np.zeros((1, 1, 3), np.uint8)
FINISHED = Finished(Path("a.mp4"), 1, 1.0, 640, 608, 1.0)
ALL, TWO_THIRDS = "1" * 16, "1101101101101101"
EVERY_OTHER, OF_THE_DEMO, OF_THE_REFERENCE = "1010101010101011", "1000010001000101", "1001001001001001"
"""The steps that are computed; TeaCache skips the others."""
RECORDED = json.loads(Path(__file__).with_name("recorded_jobs.json").read_text("utf-8"))
"""Jobs of the demo on two cores that other programs used, too: what each was asked for, its size, and its
events with their times."""
Course = list[tuple[float, Event]]
"""Events, and the time of each."""


@dataclass(frozen=True)
class Machine:
    """The seconds that the parts of a job take; `decoding` and `saving` are those of a latent frame."""

    step: float
    decoding: float
    saving: float
    loading: float = 8.0
    skipped: float = 0.05
    compiling: float = 0.0
    """Seconds by which the first step is longer."""

    def course(self, request: GenerationRequest, pattern: str, converting: float = 0.0) -> Course:
        """The events of a job that begins at 0."""
        now, plan = converting, make_plan(request)
        course: Course = []

        def after(seconds: float, event: Event) -> None:
            nonlocal now
            now += seconds
            course.append((now, event))

        if converting:
            course += [(0, Notice("eight_bit", {"path": "x"})), (0, StageStarted("eight_bit"))]
            course += [(converting * n / 10, StageProgress(n / 10)) for n in range(10)]
        after(0, Planned(plan, 640, 608, 7))
        for stage in ("prompt", "vision", "images", "transformer", "compiling"):
            after(self.loading / 5, StageStarted(stage))
        for section in plan.sections:
            after(0, StageStarted("sampling", section.index))
            for number, computed in enumerate(pattern, 1):
                extra = self.compiling if section.index == 0 and number == 1 else 0
                seconds = extra + (self.step if computed == "1" else self.skipped)
                after(seconds, StepDone(section.index, 1, number, len(pattern), computed == "1", PREVIEW))
            after(0, StageStarted("decoding", section.index))
            count, latents = pixel_frames(section.decoded_latent_frames), section.decoded_latent_frames
            windows = len(tile_starts(latents))
            for window in range(1, windows):
                frames = 4 * TILE_STRIDE * window + 1
                after(self.decoding * latents / windows, StageProgress(frames / count))
            assert frames <= count - TILE_BLEND
            after(self.decoding * latents / windows, SectionDone(section.index, 1, 33))
        decoded = sum(section.decoded_latent_frames for section in plan.sections)
        after(0.2 * self.saving * decoded, StageStarted("saving"))
        after(0.8 * self.saving * decoded, FINISHED)
        return course


def follow(
    request: GenerationRequest, course: Course, known: Speed, height: int = 608, width: int = 640
) -> tuple[list[tuple[float, Job]], Eta]:
    """The job at each event and twice between two of them, and its remaining time at the end."""
    job = Job(JobSpec("a" * 16, "a", Path(), request, Path()), state="running")
    moments: list[tuple[float, Job]] = []
    for (now, event), (then, _) in pairwise([*course, course[-1]]):
        job = apply(job, event, now)
        if isinstance(event, Planned):
            parts = job_parts(request, event.plan, height, width)
            job = replace(job, eta=Eta(parts, known, mark=now))
        for at in (now, now + 0.5 * (then - now), now + 0.99 * (then - now)):
            moments.append((at, job := job.at(at)))
    return [(at, job) for at, job in moments if job.outcome is None], job.eta


def steps_done(jobs: list[tuple[float, Job]]) -> Iterator[tuple[float, Job]]:
    """The moments from the third step on, with two computed steps behind them."""
    return ((at, job) for at, job in jobs if job.eta and len(job.eta.measured.get("computed_step", ())) >= 2)


def check(jobs: list[tuple[float, Job]], end: float) -> None:
    """Check that the time left is true within 30 %, or three seconds, and that the bar goes with it."""
    begun = next(at for at, job in jobs if job.progress.step)
    shown = [(at, job.progress) for at, job in steps_done(jobs)]
    assert len(shown) > 20
    for at, progress in shown:
        true, left = end - at, progress.seconds_left
        assert left is not None
        assert abs(left - true) <= max(0.3 * true, 3), (at, true, left)
        assert abs(progress.fraction - (1 - true / (end - begun))) < 0.3, (at, true, progress.fraction)
    fractions = [job.progress.fraction for _, job in jobs]
    assert fractions == sorted(fractions)


def request_of(pattern: str, seconds: float = 1, **values: object) -> GenerationRequest:
    plain = {"steps": len(pattern), "teacache": pattern != "1" * len(pattern), "seed": 7}
    return GenerationRequest(start_image="a", seconds=seconds, **plain | values)


GPU = Machine(step=0.87, decoding=0.13, saving=0.06)
MACHINES = {
    "a fast GPU": (GPU, TYPICAL),
    "a slow GPU": (Machine(step=7, decoding=1.1, saving=0.15, loading=40), TYPICAL),
    "compiling takes 25 s of the first step": (replace(GPU, compiling=25), TYPICAL),
    "the first step is slow": (replace(GPU, step=2.5, decoding=0.35, saving=0.08, compiling=6), TYPICAL),
    "a GPU that waits for the disk": (replace(GPU, step=1.5, loading=60), TYPICAL),
    "the demo": (Machine(step=0.5, decoding=0.7, saving=0.06), TYPICAL_DEMO),
    "the demo on a busy computer": (Machine(step=1.5, decoding=1.8, saving=0.1, loading=20), TYPICAL_DEMO),
}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("pattern", [ALL, EVERY_OTHER, OF_THE_DEMO, OF_THE_REFERENCE, TWO_THIRDS])
@pytest.mark.parametrize("seconds", [1, 5])
def test_a_first_job_tells_the_time_left_within_30_percent(name, pattern, seconds):
    (machine, typical), request = MACHINES[name], request_of(pattern, seconds)
    size = (608, 640) if typical == TYPICAL else (160, 208)
    course = machine.course(request, pattern)
    jobs, _ = follow(request, course, typical, *size)
    check(jobs, course[-1][0])
    untold = [job for _, job in jobs if job.eta and len(job.eta.measured.get("computed_step", ())) < 2]
    assert {job.progress.seconds_left for job in untold} == {None}, "nothing is invented"
    assert max(job.progress.fraction for job in untold) < 0.5, "loading is no step"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("pattern", [ALL, OF_THE_DEMO])
def test_a_second_job_tells_it_from_the_beginning(name, pattern):
    (machine, typical), request, learned = MACHINES[name], request_of(pattern, 5), []
    size = (608, 640) if typical == TYPICAL else (160, 208)
    _, eta = follow(request, machine.course(request, pattern), typical, *size)
    replace(eta, learn=learned.append).remember()
    course = replace(machine, compiling=0).course(request, pattern)
    jobs, _ = follow(request, course, learned[0], *size)
    for at, job in jobs:
        left, true = job.progress.seconds_left, course[-1][0] - at
        assert abs(left - true) <= max(0.2 * true, 3)
        assert job.progress.fraction == pytest.approx(at / course[-1][0], abs=0.1)


def test_converting_to_8_bits_is_no_part_of_the_time_that_is_told():
    request = request_of(ALL, 2)
    course = GPU.course(request, ALL, converting=300)
    jobs, _ = follow(request, course, TYPICAL)
    before = [job.progress for at, job in jobs if at < 300]
    assert len(before) > 20
    assert {(progress.fraction, progress.seconds_left) for progress in before} == {(0.0, None)}
    check(jobs, course[-1][0])


def recorded(values: dict) -> tuple[GenerationRequest, Course]:
    request = GenerationRequest(start_image="a", seed=7, **values["request"])
    course: Course = []
    for now, kind, *rest in values["events"]:
        match kind:
            case "Planned":
                event: Event = Planned(make_plan(request), values["width"], values["height"], 7)
            case "StepDone":
                event = StepDone(rest[0], 1, rest[1], request.steps, rest[2], PREVIEW)
            case "StageStarted":
                event = StageStarted(*rest)
            case "StageProgress":
                event = StageProgress(*rest)
            case "SectionDone":
                event = SectionDone(rest[0], 1, 33)
            case _:
                event = FINISHED
        course.append((now, event))
    return request, course


@pytest.mark.parametrize("values", RECORDED)
def test_recorded_first_jobs_told_the_time_left_within_30_percent(values):
    request, course = recorded(values)
    jobs, _ = follow(request, course, TYPICAL_DEMO, values["height"], values["width"])
    check(jobs, course[-1][0])

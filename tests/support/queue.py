"""Runners that only pretend, and waiting for what a queue of jobs shows."""

import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np

from diffusers_helper.events import Event, Finished, Planned, SectionDone, StageStarted, StepDone, Stopped
from diffusers_helper.plan import make_plan
from tests.support import app
from webui.eichi_utils.jobs.job import Job, JobSpec
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.view import QueueView

SOON = 20
"""Seconds that nothing here needs, unless it waits for ever."""
LONG = 200
"""Seconds that no tiny job needs, even where the first one imports torch on a busy machine."""
PREVIEW = np.zeros((4, 36, 3), np.uint8)


def wait_until(queue: JobQueue, is_so: Callable[[QueueView], object], seconds: float = SOON) -> QueueView:
    """The first view that is so."""
    view: QueueView = app.wait_until(lambda: is_so(view := queue.view()) and view, "the queue", seconds)
    return view


def wait_idle(queue: JobQueue) -> tuple[Job, ...]:
    """All that ended, oldest first, once nothing runs or waits."""
    view = wait_until(queue, lambda view: not view.running and not view.waiting)
    return tuple(sorted((*view.ended, *view.unfinished), key=lambda job: job.ended))


def finished(spec: JobSpec, frames: int = 37) -> Finished:
    return Finished(spec.folder / f"{spec.name}.mp4", frames, frames / 30, 64, 64, 1.0)


def step(number: int, steps: int = 16, section: int = 0, sections: int = 1) -> StepDone:
    return StepDone(section, sections, number, steps, True, PREVIEW)


class Runner:
    """Finishes each job at once, or when `go_on` is released; records which began.

    The first jobs have one of `courses` each instead: events to yield, or an error to raise.
    """

    def __init__(
        self, *courses: Callable[[JobSpec], Iterable[Event | BaseException]], held: bool = False
    ) -> None:
        self.began: list[JobSpec] = []
        self.go_on = threading.Semaphore(0 if held else 10**6)
        self._courses = list(courses)

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        self.began.append(spec)
        if self._courses:
            for event in self._courses.pop(0)(spec):
                if isinstance(event, BaseException):
                    raise event
                yield event
            return
        yield StageStarted("prompt")
        assert self.go_on.acquire(timeout=SOON)
        yield step(1)
        yield Stopped(None, 0, 1) if stop.is_set() else finished(spec)


class StoppedOnly(Runner):
    """Makes as many of four sections as it is to, then works until it is stopped."""

    def __init__(self, sections: int = 0, video: Path | None = None) -> None:
        super().__init__()
        self._sections, self._video = sections, video

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        self.began.append(spec)
        yield Planned(make_plan(spec.request), 64, 64, 7)
        for section in range(self._sections):
            spec.work.mkdir(exist_ok=True)
            (spec.work / f"section_{section:03d}.frames").touch()
            yield SectionDone(section, 4, 33 + 36 * section, self._video)
        yield step(1, section=self._sections, sections=4)
        assert stop.wait(SOON)
        yield Stopped(None, self._sections, 4)


def is_stepping(view: QueueView) -> bool:
    """True as soon as the running job has made a step."""
    return view.running is not None and view.running.progress.step > 0

"""Waiting for what a queue of jobs shows."""

import time
from collections.abc import Callable

from diffusers_helper.events import Finished
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.queue import JobQueue, QueueView

SOON = 20
"""Seconds that nothing here needs, unless it waits for ever."""


def wait_until(queue: JobQueue, is_so: Callable[[QueueView], object], seconds: float = SOON) -> QueueView:
    """The first view that is so."""
    end = time.monotonic() + seconds
    while not is_so(view := queue.view()):
        assert time.monotonic() < end, view
        time.sleep(0.01)
    return view


def finished(spec: JobSpec, frames: int = 37) -> Finished:
    return Finished(spec.folder / f"{spec.name}.mp4", frames, frames / 30, 64, 64, 1.0)

"""The time that all jobs together still take: the running one's own, and that of each that waits."""

from functools import lru_cache

from diffusers_helper import events
from diffusers_helper.errors import EngineError
from diffusers_helper.plan import make_plan

from ..form import request_size
from .eta import Eta, Part, Speed, job_parts
from .job import Job, JobSpec
from .view import QueueView


def seconds_left(view: QueueView, known: Speed | None) -> float | None:
    """Return the seconds until all that runs and waits is made; None where that is not known yet.

    Args:
        known: the speed of an earlier job on this machine; the running job's own counts more.
    """
    running, left = view.running, 0.0
    if running is not None and not running.stopping:
        if running.eta is None or running.progress.seconds_left is None:
            return None
        known, left = running.eta.speed, running.progress.seconds_left
    if known is None:
        return None
    try:
        return left + sum(_seconds(job, known) for job in view.waiting)
    except EngineError:  # a picture is gone, or cannot be opened now
        return None


def _seconds(job: Job, speed: Speed) -> float:
    progress, eta = job.progress, Eta([*_parts(job.spec)], speed)
    if progress.sections_done:
        eta = eta.apply(events.Resumed(progress.sections_done, progress.sections, 0), 0.0)
    return eta.at(0.0)[1] or 0.0


@lru_cache(maxsize=256)
def _parts(spec: JobSpec) -> tuple[Part, ...]:
    """Return the parts of a job that waits; raises EngineError where its start image cannot be read."""
    size = request_size(spec.request)
    assert size is not None, "a queued job has its pictures"
    return tuple(job_parts(spec.request, make_plan(spec.request), *size))

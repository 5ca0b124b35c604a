"""What will come out of a filled-in form, before anything is computed. Knows no widget and no tensor."""

from dataclasses import dataclass

from diffusers_helper.buckets import video_size
from diffusers_helper.media.images import read_size
from diffusers_helper.plan import Plan, make_plan
from diffusers_helper.request import GenerationRequest

from ..jobs.eta import Work
from ..jobs.speed_history import SpeedBook

UNKNOWN_PICTURE = "?"
"""Stands for a start image that is not chosen yet."""


@dataclass(frozen=True)
class Outlook:
    """Frames, seconds and sections of the video; its size as soon as the start image is known; about how
    many seconds it takes, where this machine has made one before."""

    frames: int
    seconds: float
    sections: int
    height: int | None
    width: int | None
    duration: float | None


def look_ahead(request: GenerationRequest, speed: SpeedBook, machine: str | None) -> Outlook:
    """What `request` will give.

    Raises:
        InputError: its start image cannot be read.
    """
    plan = make_plan(request)
    size = None
    if request.start_picture != UNKNOWN_PICTURE:
        size = request_size(request)
    elif request.height is not None and request.width is not None:
        size = request.height, request.width
    duration = None
    if size is not None and machine is not None:
        work = job_work(request, plan, size)
        pace = speed.pace(machine, work)
        duration = None if pace is None else pace.seconds(work)
    height, width = size or (None, None)
    return Outlook(plan.pixel_frames, plan.seconds, len(plan.sections), height, width, duration)


def request_size(request: GenerationRequest) -> tuple[int, int]:
    """Height and width of the video, by the start image's shape."""
    return video_size(request.resolution, request.width, request.height, *read_size(request.start_picture))


def job_work(request: GenerationRequest, plan: Plan, size: tuple[int, int]) -> Work:
    """What a job's time goes with; `size` is the video's height and width."""
    height, width = size
    return Work(
        sections=len(plan.sections),
        steps=request.steps,
        volume=plan.size.latent_frames * (height // 8) * (width // 8),
        teacache_threshold=request.teacache_threshold if request.teacache else None,
        passes=1 if request.guidance_scale == 1 else 2,
    )

"""The size and length of a filled-in form's video, before anything is computed."""

from dataclasses import dataclass

from diffusers_helper.buckets import video_size
from diffusers_helper.plan import make_plan
from diffusers_helper.public import read_size
from diffusers_helper.request import GenerationRequest

from ..jobs.eta import SpeedHistory, job_size

UNKNOWN_PICTURE = "?"
"""The start image's name while none is chosen."""


@dataclass(frozen=True)
class Estimate:
    """Frames, seconds and sections of the video; height and width where the start image is known; `duration`,
    the seconds until it is made, where this machine has made one before."""

    frames: int
    seconds: float
    sections: int
    height: int | None = None
    width: int | None = None
    duration: float | None = None


def estimate(request: GenerationRequest, speeds: SpeedHistory, machine: str | None) -> Estimate:
    """Return what a request results in.

    Raises:
        InputError: its start image cannot be read.
    """
    plan = make_plan(request)
    numbers = plan.pixel_frames, plan.seconds, len(plan.sections)
    if plan.start != UNKNOWN_PICTURE:
        height, width = request_size(request)
    elif request.height is not None and request.width is not None:
        height, width = request.height, request.width
    else:
        return Estimate(*numbers)
    speed, size = speeds.speed(machine), job_size(request, plan, height, width)
    return Estimate(*numbers, height, width, None if speed is None else sum(speed.parts(size)))


def request_size(request: GenerationRequest) -> tuple[int, int]:
    """Return the video's height and width, by the start image's shape."""
    return video_size(request.resolution, request.width, request.height, *read_size(request.start_picture))

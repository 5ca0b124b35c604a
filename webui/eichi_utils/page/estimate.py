"""The estimate of what a filled-in form results in, in words, before anything is computed."""

from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest

from ..form import request_size
from ..jobs.eta import Speed, job_parts
from ..text.durations import format_duration
from ..text.translations import Translator


def estimate(requests: list[GenerationRequest], speed: Speed | None, words: Translator) -> str:
    """Return the length, the size and the duration of requests that differ in their start images alone.

    The size is left out while no start image is chosen, the duration while no `speed` is known.

    Raises:
        InputError: the first start image cannot be read.
    """
    request = requests[0]
    plan, size = make_plan(request), request_size(request)
    text = words("page.outlook", frames=plan.pixel_frames, seconds=f"{plan.seconds:.2f}")
    if size is not None:
        text += words("page.outlook_size", width=size[1], height=size[0])
    text += words("page.outlook_sections", sections=len(plan.sections))
    if size is not None and speed is not None:
        duration = sum(speed.seconds(job_parts(request, plan, *size)))
        text += words("page.outlook_duration", time=format_duration(duration, words))
    if len(requests) > 1:
        text += words("page.outlook_videos", count=len(requests))
    if request.loop:
        text += words("page.outlook_loop" if request.end_image is None else "page.outlook_loop_own_end")
    return text

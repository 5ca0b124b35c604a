"""The estimate of what a filled-in form results in, in words, before anything is computed."""

from dataclasses import replace
from pathlib import Path

from diffusers_helper.errors import EngineError
from diffusers_helper.plan import make_plan
from diffusers_helper.public import read_size_and_length
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import FPS, count_sections

from ..app import AppState
from ..download.model_folders import free_bytes, gigabytes
from ..form import request_size
from ..jobs.eta import Speed, job_parts
from ..text.durations import format_duration, shown_seconds
from ..text.translations import Translator

NO_GPU = ("no_card", "card_unused")
"""The codes of the check's lines about computers that compute on their processor."""
LONG_SECONDS = 8
"""Seconds of a request from which on videos drift away from their start image."""
LEAST_SHOWN = 100_000_000
"""Bytes that are 0.1 GB in words."""


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
    sections = len(plan.sections)
    text += words("page.outlook_sections" if sections > 1 else "page.outlook_one_section", sections=sections)
    if size is not None and speed is not None:
        seconds, count = sum(speed.seconds(job_parts(request, plan, *size))), len(requests)
        total = format_duration(count * shown_seconds(seconds), words)  # what a reader reckons, too
        key = "page.outlook_durations" if count > 1 else "page.outlook_duration"
        text += words(key, time=format_duration(seconds, words), total=total, count=count)
    elif len(requests) > 1:
        text += words("page.outlook_videos", count=len(requests))
    if request.loop:
        text += words("page.outlook_loop" if request.end_image is None else "page.outlook_loop_own_end")
    if request.previous_video is not None:
        text += _joined(request, plan.pixel_frames, words)
    if sections >= count_sections(LONG_SECONDS, request.section_size):
        text += "\n" + words("page.outlook_long")
    return text


def _joined(request: GenerationRequest, frames: int, words: Translator) -> str:
    """Return the length of the joined video, and a sentence where its size is not the chosen one."""
    *_, before = read_size_and_length(Path(request.previous_video or ""))
    text = words("page.outlook_joined", seconds=f"{(before + frames - 1) / FPS:.2f}")
    if request_size(request) != request_size(replace(request, width=None, height=None)):
        text += "\n" + words("page.outlook_joined_size")
    return text


def needed_for_eight_bit(app: AppState, words: Translator) -> str:
    """Return what the fast weights still need on this computer; nothing where its models are not complete."""
    try:
        folder, needed = app.options.engine.room_for_eight_bit()
        free = gigabytes(free_bytes(folder))
    except (EngineError, OSError):
        return ""
    key = "page.fast_room" if needed else "page.fast_there"
    text = words(key, path=folder, needed=gigabytes(max(needed, LEAST_SHOWN)), free=free)
    lines = app.preflight.view().lines or ()
    return text + ("\n" + words("page.fast_no_card") if any(line.code in NO_GPU for line in lines) else "")

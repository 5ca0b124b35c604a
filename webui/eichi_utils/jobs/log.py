"""What the log file is told of each job: what was asked for, how far it came, how long it took.

Pictures and the user's words stay out: of those, the log gets to know how long they are.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from diffusers_helper.events import (
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageStarted,
    Stopped,
)
from diffusers_helper.request import GenerationRequest

from .job import JobSpec

logger = logging.getLogger(__name__)

Run = Callable[[JobSpec, threading.Event], Iterator[Event]]
PICTURES = ("start_image", "end_image", "image")
TEXTS = ("prompt", "negative_prompt")


def logged(run: Run) -> Run:
    """The same runner of jobs, which also tells the log."""

    def run_and_tell(spec: JobSpec, stop: threading.Event) -> Iterator[Event]:
        begun, outcome = time.monotonic(), "was given up"
        request = spec.request
        logger.info("job %s: %s", spec.name, _described(request), extra={"private": spec.private_texts})
        with contextlib.ExitStack() as stack:
            events = run(spec, stop)
            close: Callable[[], None] | None = getattr(events, "close", None)
            if close is not None:
                stack.callback(close)
            try:
                for event in events:
                    outcome = _tell(event) or outcome
                    yield event
            except Exception as error:
                outcome = f"failed ({type(error).__name__})"
                raise
            finally:
                logger.info("job %s %s after %.1f s", spec.name, outcome, time.monotonic() - begun)

    return run_and_tell


def _described(request: GenerationRequest) -> str:
    values = request.to_dict()
    values["keyframes"] = [_without_content(keyframe) for keyframe in values["keyframes"]]
    return json.dumps(_without_content(values))


def _without_content(values: dict[str, Any]) -> dict[str, Any]:
    shown = dict(values)
    shown.update({key: "[picture]" for key in PICTURES if shown.get(key) is not None})
    shown.update({key: f"[{len(shown[key])} characters]" for key in TEXTS if shown.get(key)})
    return shown


def _tell(event: Event) -> str | None:
    """Tell of an event; the outcome that it stands for, if it does."""
    match event:
        case Planned(plan=plan, width=width, height=height):
            size, sections = f"{width}x{height}", len(plan.sections)
            logger.info("planned: %d frames, %s, %d sections", plan.pixel_frames, size, sections)
        case StageStarted(stage=stage, section=section):
            logger.info("begins: %s%s", stage, "" if section is None else f" of section {section}")
        case Notice(code=code, values=values):
            known = {key: value for key, value in values.items() if key not in TEXTS}
            logger.info("notice: %s %s", code, known)
        case Resumed(sections_done=done, sections=sections):
            logger.info("goes on behind %d sections, of %d", done, sections)
        case SectionDone(section=section, sections=sections):
            logger.info("section %d is done, of %d", section, sections)
        case Finished(video=video):
            logger.info("finished: %s", video)
            return "done"
        case Stopped(kept=kept, sections_done=done):
            logger.info("stopped: %d sections are kept, in %s", done, kept)
            return "stopped"
    return None

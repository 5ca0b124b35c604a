"""The log of jobs: for each one its request, its progress, its end and its length.

Pictures and the user's texts stay out: of the texts, only their lengths are logged.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Generator

from diffusers_helper import events
from diffusers_helper.request import GenerationRequest

from .job import JobSpec, Run

logger = logging.getLogger(__name__)

TEXTS = ("prompt", "negative_prompt")


def logged(run: Run) -> Run:
    """Return the same runner of jobs, which also writes the log."""

    def run_and_log(spec: JobSpec, stop: threading.Event) -> Generator[events.Event, None, None]:
        begun, outcome = time.monotonic(), "was abandoned"
        logger.info("job %s: %s", spec.name, _described(spec.request), extra={"private": spec.private_texts})
        try:
            with contextlib.closing(run(spec, stop)) as job_events:
                for event in job_events:
                    outcome = _log(event) or outcome
                    yield event
        except Exception as error:
            outcome = f"failed ({type(error).__name__})"
            raise
        finally:
            logger.info("job %s %s after %.1f s", spec.name, outcome, time.monotonic() - begun)

    return run_and_log


def _described(request: GenerationRequest) -> str:
    values = request.map_images(lambda _: "[picture]").to_dict()
    for owner in (values, *values["keyframes"]):
        owner.update({key: f"[{len(owner[key])} characters]" for key in TEXTS if owner.get(key)})
    return json.dumps(values)


def _log(event: events.Event) -> str | None:
    """Log an event; returns the outcome that it stands for, if it does."""
    match event:
        case events.Planned(plan=plan, width=width, height=height):
            size, sections = f"{width}x{height}", len(plan.sections)
            logger.info("planned: %d frames, %s, %d sections", plan.pixel_frames, size, sections)
        case events.StageStarted(stage=stage, section=section):
            logger.info("begins: %s%s", stage, "" if section is None else f" of section {section}")
        case events.Notice(code=code, values=values):
            logger.info("notice: %s %s", code, {key: values[key] for key in values if key not in TEXTS})
        case events.Resumed(sections_done=done, sections=sections):
            logger.info("resumes after %d sections, of %d", done, sections)
        case events.SectionDone(section=section, sections=sections):
            logger.info("section %d is done, of %d", section, sections)
        case events.Finished(video=video):
            logger.info("finished: %s", video)
            return "done"
        case events.Stopped(kept=kept, sections_done=done):
            logger.info("stopped: %d sections are kept, in %s", done, kept)
            return "stopped"
    return None

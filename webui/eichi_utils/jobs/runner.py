"""The runner of jobs: finds the models and hands each job to the engine, which the first one imports.

Its log has each job's request, progress, end and length. Pictures and the user's texts stay out: of the
texts, only their lengths are logged.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusers_helper import events
from diffusers_helper.request import GenerationRequest

from ..engine_options import EngineOptions
from ..support.keep_awake import keep_awake
from .imports import finish_import
from .job import JobSpec, Run

if TYPE_CHECKING:
    from diffusers_helper.engine import Engine

logger = logging.getLogger(__name__)

TEXTS = ("prompt", "negative_prompt")


@dataclass
class JobRunner:
    """Makes the videos of jobs, one after another: not for two threads at a time.

    The models' files are checked before each job, and the engine is kept while they and the job's choice of
    weights are the same. So a download that is completed while the app runs is used by the next job.
    """

    options: EngineOptions
    partial_videos: bool = False
    save_latents: bool = False
    _engine: "Engine | None" = field(default=None, init=False)

    @property
    def machine_key(self) -> str | None:
        """The GPU, its memory limit and the models: they decide the speed. None before the first job."""
        return None if self._engine is None else self._engine.machine

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[events.Event, None, None]:
        """Make one job's video; the events end with Finished or Stopped.

        Raises:
            InputError: a picture, the models or the output folder cannot be used.
            MachineError: the machine was not up to it.
        """
        with keep_awake():
            files = yield from self.options.find_models()
            finish_import()
            from diffusers_helper.engine import Engine, Target

            config = self.options.config_of(files, spec.eight_bit)
            if self._engine is None or self._engine.config != config:
                self._engine = Engine(config)
            target = Target(spec.folder, spec.name, self.save_latents, self.partial_videos, spec.work)
            yield from self._engine.generate(spec.request, target, stop)


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

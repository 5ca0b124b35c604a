"""Makes one video without a page: from a request file to the files, with progress on the terminal."""

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffusers_helper import events
from diffusers_helper.errors import InputError
from diffusers_helper.public import JOINED, continue_video, holds_sections, load_request
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import FPS

from .engine_options import DEMO_RESOLUTION, EngineOptions
from .jobs.eta import TYPICAL, TYPICAL_DEMO, Eta, Part, Speed, job_parts
from .jobs.job import JobSpec, Progress
from .jobs.runner import JobRunner, logged
from .jobs.store import delete_stale, work_folder
from .machine.check import check_lines
from .output import check_name, new_name
from .progress_line import ProgressLine
from .support.failures import as_engine_error, loggable
from .terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, report, stop_on_ctrl_c, write_line
from .text.translations import Translator

logger = logging.getLogger(__name__)


def run_headless(options: argparse.Namespace, engine: EngineOptions, words: Translator) -> int:
    """Make the video; returns the exit status. Every failure is one sentence on the error stream.

    Args:
        options: of the command line; unfinished videos are kept in its home.
    """
    stop = threading.Event()
    run = _Run()
    with stop_on_ctrl_c(stop, words("stopping")):
        try:
            return _follow(_generate(options, engine, stop, run), run, words)
        except KeyboardInterrupt:
            report(words("stopped.at_once"))
            run.report_kept(words)
            return EXIT_STOPPED
        except Exception as caught:  # the edge of the app: no traceback reaches the user
            error = as_engine_error(caught)
            if isinstance(error, InputError):  # raised, perhaps, before the private texts were known
                logger.warning("failed: %s", loggable(error))
            else:
                logger.warning("failed", exc_info=True)
            run.report_kept(words)
            report(words("failed", reason=words(f"error.{error.code}", **error.values)))
            return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


@dataclass
class _Run:
    """A run's name and working folder, once its request is read, and its progress until now."""

    name: str = ""
    work: Path | None = None
    progress: Progress = field(default_factory=Progress)
    parts: Callable[[events.Planned], list[Part]] | None = None
    typical: Speed = TYPICAL
    eta: Eta | None = None

    def apply(self, event: events.Event) -> None:
        """Take an event into the progress and the remaining time."""
        now, self.progress = time.monotonic(), self.progress.after(event)
        if isinstance(event, events.Planned) and self.parts is not None:
            self.eta = Eta(self.parts(event), self.typical, mark=now)
        elif self.eta is not None:
            self.eta = self.eta.apply(event, now)
            self.progress = replace(self.progress, seconds_left=self.eta.at(now)[1])

    def report_kept(self, words: Translator) -> None:
        """Report, where sections are finished, how the next run can resume."""
        done, sections = self.progress.sections_done, self.progress.sections
        if done:
            report(words("stopped.go_on", done=done, sections=sections, name=self.name))
        elif self.work is not None and holds_sections(self.work):
            report(words("stopped.go_on_steps", name=self.name))


def _generate(
    options: argparse.Namespace, engine: EngineOptions, stop: threading.Event, run: _Run
) -> Iterator[events.Event]:
    """Check what is quick to check; the runner only then imports what is slow."""
    output, temp = options.output or options.home / "outputs", options.home.absolute() / "temp"
    delete_stale(temp)
    request = load_request(options.headless, {"resolution": DEMO_RESOLUTION} if engine.uses_demo else {})
    name = run.name = check_name(options.name) if options.name is not None else new_name(output)
    run.parts = lambda planned: job_parts(request, planned.plan, planned.height, planned.width)
    run.typical = TYPICAL_DEMO if engine.uses_demo else TYPICAL
    runner = JobRunner(engine, save_latents=options.save_latents)
    run.work = work_folder(temp, output, name)
    request = _continued(request, output / name, is_begun=holds_sections(run.work))
    spec = JobSpec(name, name, output, request, run.work)
    # for the log
    threading.Thread(target=check_lines, args=(engine, output), name="check", daemon=True).start()
    return logged(runner)(spec, stop)


def _continued(request: GenerationRequest, target: Path, *, is_begun: bool) -> GenerationRequest:
    """Complete a request that continues a video, see `continue_video`.

    A run that resumes needs that video no more, if the request is complete.

    Raises:
        InputError: it cannot be continued, or would be overwritten by a file of `target`.
    """
    if request.previous_video is None:
        return request
    previous = Path(request.previous_video)
    if previous.absolute() in [target.with_name(target.name + end).absolute() for end in (".mp4", JOINED)]:
        raise InputError("previous_video_overwritten", path=str(previous))
    is_away = not os.path.exists(previous)  # noqa: PTH110  (exists may raise)
    if is_begun and is_away and None not in (request.start_image, request.width):
        return request
    return continue_video(request)


def _follow(job_events: Iterable[events.Event], run: _Run, words: Translator) -> int:
    """Report the events on the terminal until the last one; returns the exit status."""
    with ProgressLine(words, sys.stderr) as line:
        for event in job_events:
            run.apply(event)
            line.show(event, run.progress)
            match event:
                case events.Planned(plan=plan, width=width, height=height):
                    frames, seconds = plan.pixel_frames, f"{plan.seconds:.2f}"
                    report(words("planned", frames=frames, seconds=seconds, width=width, height=height))
                case events.Notice(code=code, values=values):
                    report(words(f"notice.{code}", **values))
                case events.Resumed(sections_done=done, sections=sections):
                    report(words("resumed", done=done, sections=sections))
                case events.SectionDone(section=section, sections=sections) if not line.is_bar:
                    report(words("section_done", number=section + 1, sections=sections))
                case events.Finished():
                    line.close()
                    _write_finished(event, words)
                case events.Stopped(kept=kept):
                    line.close()
                    report(words("stopped" if kept is None else "stopped.kept", kept=kept))
                    run.report_kept(words)
                    return EXIT_STOPPED
    return EXIT_DONE


def _write_finished(event: events.Finished, words: Translator) -> None:
    numbers = {"seconds": f"{event.seconds:.2f}", "elapsed": f"{event.elapsed:.1f}"}
    write_line(words("finished", **vars(event) | numbers), sys.stdout)
    if event.joined is not None:
        numbers["seconds"] = f"{event.joined_frames / FPS:.2f}"
        write_line(words("finished.joined", **vars(event) | numbers), sys.stdout)

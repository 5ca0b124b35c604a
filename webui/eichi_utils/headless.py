"""Makes one video without a page: from a request file to the files, with progress on the terminal."""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from tqdm import tqdm

from diffusers_helper import events
from diffusers_helper.errors import InputError
from diffusers_helper.public import load_request

from .engine_options import DEMO_RESOLUTION, EngineOptions
from .jobs.job import JobSpec, Progress
from .jobs.runner import JobRunner, logged
from .jobs.store import delete_stale, work_folder
from .machine.check import check_lines
from .output import check_name, new_name
from .support.failures import as_engine_error, loggable
from .terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, report, stop_on_ctrl_c, write_line
from .text.translations import Translator

logger = logging.getLogger(__name__)

DEFAULT_WIDTH, DEFAULT_HEIGHT = 80, 24


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
    """A run's name, once its request is read, and its progress until now."""

    name: str = ""
    progress: Progress = field(default_factory=Progress)

    def report_kept(self, words: Translator) -> None:
        """Report, where sections are finished, how the next run can resume."""
        if done := self.progress.sections_done:
            report(words("stopped.go_on", done=done, sections=self.progress.sections, name=self.name))


def _generate(
    options: argparse.Namespace, engine: EngineOptions, stop: threading.Event, run: _Run
) -> Iterator[events.Event]:
    """Check what is quick to check; the runner only then imports what is slow."""
    output, temp = options.output or options.home / "outputs", options.home.absolute() / "temp"
    delete_stale(temp)
    request = load_request(options.headless, {"resolution": DEMO_RESOLUTION} if engine.uses_demo else {})
    name = run.name = check_name(options.name) if options.name is not None else new_name(output)
    runner = JobRunner(engine, save_latents=options.save_latents)
    spec = JobSpec(name, name, output, request, work_folder(temp, output, name))
    # for the log
    threading.Thread(target=check_lines, args=(engine, output), name="check", daemon=True).start()
    return logged(runner)(spec, stop)


def _follow(job_events: Iterable[events.Event], run: _Run, words: Translator) -> int:
    """Report the events on the terminal until the last one; returns the exit status."""
    with tqdm(disable=None, unit=words("progress.unit"), file=sys.stderr, **_width(sys.stderr)) as bar:
        for event in job_events:
            run.progress = run.progress.after(event)
            match event:
                case events.Planned(plan=plan, width=width, height=height):
                    frames, seconds = plan.pixel_frames, f"{plan.seconds:.2f}"
                    report(words("planned", frames=frames, seconds=seconds, width=width, height=height))
                case events.StageStarted() | events.StageProgress():
                    bar.set_postfix_str(run.progress.stage_text(words))
                case events.Notice(code=code, values=values):
                    report(words(f"notice.{code}", **values))
                case events.Resumed(sections_done=done, sections=sections):
                    report(words("resumed", done=done, sections=sections))
                case events.StepDone():
                    _advance(bar, event, words)
                case events.SectionDone(section=section, sections=sections) if bar.disable:
                    report(words("section_done", number=section + 1, sections=sections))
                case events.Finished():
                    bar.close()
                    numbers = {"seconds": f"{event.seconds:.2f}", "elapsed": f"{event.elapsed:.1f}"}
                    write_line(words("finished", **vars(event) | numbers), sys.stdout)
                case events.Stopped(kept=kept):
                    bar.close()
                    report(words("stopped" if kept is None else "stopped.kept", kept=kept))
                    run.report_kept(words)
                    return EXIT_STOPPED
    return EXIT_DONE


def _width(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's options: the terminal's width, or a default where it reports none (tqdm's would be 0)."""
    try:
        has_width = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        has_width = False
    return {"dynamic_ncols": True} if has_width else {"ncols": DEFAULT_WIDTH, "nrows": DEFAULT_HEIGHT}


def _advance(bar: tqdm, event: events.StepDone, words: Translator) -> None:
    ahead = (event.sections - event.section) * event.steps  # at the section's beginning
    bar.total = bar.total or ahead
    bar.set_description_str(words("progress.section", number=event.section + 1, sections=event.sections))
    bar.set_postfix_str(words("progress.step", step=event.step, steps=event.steps))
    bar.update(bar.total - ahead + event.step - bar.n)  # back, where a section is made once more

"""Making one video without a page: from a request file to the files, told on the terminal."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from diffusers_helper.errors import InputError
from diffusers_helper.events import (
    Event,
    Finished,
    Notice,
    Planned,
    SectionDone,
    StageStarted,
    StepDone,
    Stopped,
)

from .failures import as_engine_error
from .job import JobSpec
from .job_log import logged
from .job_runner import EngineOptions, JobRunner
from .machine_check import CheckOptions, check_for_log
from .output_names import check_name, new_name
from .terminal import say, write_line
from .translations import Translator

logger = logging.getLogger(__name__)

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 1, 2, 130


@dataclass(frozen=True)
class HeadlessOptions:
    """What the command line says. `name` None means a new one."""

    request: Path
    output: Path
    name: str | None
    engine: EngineOptions
    save_latents: bool


def run_headless(options: HeadlessOptions, words: Translator) -> int:
    """Make the video; returns the exit status. Every failure is one sentence on the error stream."""
    stop = threading.Event()
    with _stop_on_ctrl_c(stop, words):
        try:
            return _report(_generate(options, stop), words)
        except KeyboardInterrupt:
            say(words("stopped.at_once"))
            return EXIT_STOPPED
        except Exception as caught:  # the edge of the app: no traceback reaches the user
            logger.warning("failed", exc_info=True)
            error = as_engine_error(caught)
            say(words("failed", reason=words(f"error.{error.code}", **error.values)))
            return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


def _generate(options: HeadlessOptions, stop: threading.Event) -> Iterator[Event]:
    """Check what is quick to check; the runner only then imports what is slow."""
    from diffusers_helper.recording import load_request

    request = load_request(options.request)
    name = check_name(options.name) if options.name is not None else new_name(options.output)
    runner = JobRunner(options.engine, save_latents=options.save_latents)
    check_for_log(CheckOptions(options.engine, options.output))
    return logged(runner)(JobSpec(name, name, options.output, request), stop)


def _report(events: Iterable[Event], words: Translator) -> int:
    """Tell the events on the terminal until the last one; returns the exit status."""
    bar = tqdm(disable=None, unit=words("progress.unit"), file=sys.stderr, dynamic_ncols=True)
    with bar:
        for event in events:
            match event:
                case Planned(plan=plan, width=width, height=height):
                    frames, seconds = plan.pixel_frames, f"{plan.seconds:.2f}"
                    say(words("planned", frames=frames, seconds=seconds, width=width, height=height))
                case StageStarted(stage=stage):
                    bar.set_postfix_str(words(f"stage.{stage}"))
                case Notice(code=code, values=values):
                    say(words(f"notice.{code}", **values))
                case StepDone():
                    _advance(bar, event, words)
                case SectionDone(section=section, sections=sections) if bar.disable:
                    say(words("section_done", number=section + 1, sections=sections))
                case Finished():
                    bar.close()
                    _announce(event, words)
                case Stopped(kept=kept, sections_done=done, sections=sections):
                    bar.close()
                    key = "stopped" if kept is None else "stopped.kept"
                    say(words(key, done=done, sections=sections, kept=kept))
                    return EXIT_STOPPED
    return EXIT_DONE


def _advance(bar: tqdm, event: StepDone, words: Translator) -> None:
    bar.total = event.sections * event.steps
    bar.set_description_str(words("progress.section", number=event.section + 1, sections=event.sections))
    bar.set_postfix_str(words("progress.step", step=event.step, steps=event.steps))
    bar.update()


def _announce(event: Finished, words: Translator) -> None:
    line = words(
        "finished",
        video=event.video,
        frames=event.frames,
        seconds=f"{event.seconds:.2f}",
        width=event.width,
        height=event.height,
        elapsed=f"{event.elapsed:.1f}",
    )
    write_line(line, sys.stdout)


@contextlib.contextmanager
def _stop_on_ctrl_c(stop: threading.Event, words: Translator) -> Iterator[None]:
    """The first Ctrl-C asks to stop after the step, the second ends at once."""

    def ask(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say(words("stopping"))

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

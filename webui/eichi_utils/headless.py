"""Making one video without a page: from a request file to the files, told on the terminal."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from diffusers_helper.errors import InputError
from diffusers_helper.events import (
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageProgress,
    StageStarted,
    StepDone,
    Stopped,
)

from .engine_options import DEMO_RESOLUTION
from .jobs.headless_folders import give_up_old, work_folder
from .jobs.job import JobSpec
from .jobs.log import logged
from .jobs.runner import EngineOptions, JobRunner
from .machine.check import CheckOptions, check_for_log
from .output import check_name, new_name
from .support.failures import as_engine_error, loggable
from .terminal import say, write_line
from .text.translations import Translator

logger = logging.getLogger(__name__)

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 1, 2, 130
USUAL_WIDTH, USUAL_HEIGHT = 80, 24


@dataclass(frozen=True)
class HeadlessOptions:
    """What the command line says. `name` None means a new one; unfinished videos wait in `temp`."""

    request: Path
    output: Path
    name: str | None
    engine: EngineOptions
    save_latents: bool
    temp: Path


def run_headless(options: HeadlessOptions, words: Translator) -> int:
    """Make the video; returns the exit status. Every failure is one sentence on the error stream."""
    stop = threading.Event()
    told = _Told()
    with _stop_on_ctrl_c(stop, words):
        try:
            return _report(_generate(options, stop, told), told, words)
        except KeyboardInterrupt:
            say(words("stopped.at_once"))
            told.say_how_to_go_on(words)
            return EXIT_STOPPED
        except Exception as caught:  # the edge of the app: no traceback reaches the user
            error = as_engine_error(caught)
            if isinstance(error, InputError):  # its request may not have told yet which texts are private
                logger.warning("failed: %s", loggable(error))
            else:
                logger.warning("failed", exc_info=True)
            told.say_how_to_go_on(words)
            say(words("failed", reason=words(f"error.{error.code}", **error.values)))
            return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


@dataclass
class _Told:
    """What a run that ends early has to say: the name to go on with, and what is finished. Before, its stage,
    and how far that is, where it tells."""

    name: str = ""
    stage: str = ""
    fraction: float | None = None
    done: int = 0
    sections: int = 0

    def take(self, event: Event) -> None:
        if isinstance(event, SectionDone):
            self.done, self.sections = event.section + 1, event.sections
        elif isinstance(event, Resumed | Stopped):
            self.done, self.sections = event.sections_done, event.sections
        elif isinstance(event, StageStarted):
            self.stage, self.fraction = event.stage, None
        elif isinstance(event, StageProgress):
            self.fraction = event.fraction

    def stage_text(self, words: Translator) -> str:
        stage = words(f"stage.{self.stage}")
        if self.fraction is None:
            return stage
        return words("progress.stage", stage=stage, percent=round(100 * self.fraction))

    def say_how_to_go_on(self, words: Translator) -> None:
        if self.done:
            say(words("stopped.go_on", done=self.done, sections=self.sections, name=self.name))


def _generate(options: HeadlessOptions, stop: threading.Event, told: _Told) -> Iterator[Event]:
    """Check what is quick to check; the runner only then imports what is slow."""
    from diffusers_helper.media.embedded_request import load_request

    give_up_old(options.temp)
    defaults = {"resolution": DEMO_RESOLUTION} if options.engine.uses_demo else {}
    request = load_request(options.request, defaults)
    name = told.name = check_name(options.name) if options.name is not None else new_name(options.output)
    runner = JobRunner(options.engine, save_latents=options.save_latents)
    work = work_folder(options.temp, options.output, name)
    check_for_log(CheckOptions(options.engine, options.output))
    return logged(runner)(JobSpec(name, name, options.output, request, work), stop)


def _report(events: Iterable[Event], told: _Told, words: Translator) -> int:
    """Tell the events on the terminal until the last one; returns the exit status."""
    bar = tqdm(disable=None, unit=words("progress.unit"), file=sys.stderr, **_width(sys.stderr))
    with bar:
        for event in events:
            told.take(event)
            match event:
                case Planned(plan=plan, width=width, height=height):
                    frames, seconds = plan.pixel_frames, f"{plan.seconds:.2f}"
                    say(words("planned", frames=frames, seconds=seconds, width=width, height=height))
                case StageStarted() | StageProgress():
                    bar.set_postfix_str(told.stage_text(words))
                case Notice(code=code, values=values):
                    say(words(f"notice.{code}", **values))
                case Resumed(sections_done=done, sections=sections):
                    say(words("resumed", done=done, sections=sections))
                case StepDone():
                    _advance(bar, event, words)
                case SectionDone(section=section, sections=sections) if bar.disable:
                    say(words("section_done", number=section + 1, sections=sections))
                case Finished():
                    bar.close()
                    _announce(event, words)
                case Stopped(kept=kept):
                    bar.close()
                    say(words("stopped" if kept is None else "stopped.kept", kept=kept))
                    told.say_how_to_go_on(words)
                    return EXIT_STOPPED
    return EXIT_DONE


def _width(stream: TextIO) -> dict[str, Any]:
    """The bar follows the terminal's width; where that has none to tell, tqdm would show nothing."""
    try:
        has_width = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        has_width = False
    return {"dynamic_ncols": True} if has_width else {"ncols": USUAL_WIDTH, "nrows": USUAL_HEIGHT}


def _advance(bar: tqdm, event: StepDone, words: Translator) -> None:
    ahead = (event.sections - event.section) * event.steps  # at the section's beginning
    bar.total = bar.total or ahead
    bar.set_description_str(words("progress.section", number=event.section + 1, sections=event.sections))
    bar.set_postfix_str(words("progress.step", step=event.step, steps=event.steps))
    bar.update(bar.total - ahead + event.step - bar.n)  # back, where a section is made once more


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
    with contextlib.suppress(OSError):  # nobody can read it; the video is there all the same
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

"""The progress of one video in words: a bar on a terminal, a line every few seconds anywhere else."""

import os
import time
from typing import Any, TextIO

from tqdm import tqdm

from diffusers_helper import events

from .jobs.job import Progress
from .terminal import report
from .text.durations import format_duration
from .text.translations import Translator

DEFAULT_WIDTH, DEFAULT_HEIGHT = 80, 24
LINE_SECONDS = 5.0
"""Seconds at least between two lines where there is no terminal."""
LOADING = "{desc}"
SAMPLING = "{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {desc}"
"""The bar counts denoising steps; before the first one there is nothing to count."""


class ProgressLine:
    """The line of one video, from its first event to `close`."""

    def __init__(self, words: Translator, stream: TextIO) -> None:
        self._words = words
        self._bar = tqdm(disable=None, bar_format=LOADING, file=stream, **_width(stream))
        self._told = time.monotonic()

    @property
    def is_bar(self) -> bool:
        """True on a terminal."""
        return not self._bar.disable

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the line, before the last words."""
        self._bar.close()

    def show(self, event: events.Event, progress: Progress) -> None:
        """Show the progress after an event."""
        if not isinstance(event, events.StageStarted | events.StageProgress | events.StepDone):
            return
        text = progress_text(progress, self._words)
        if self.is_bar:
            self._bar.set_description_str(text, refresh=not isinstance(event, events.StepDone))
            if isinstance(event, events.StepDone):
                advance(self._bar, event)
        elif (now := time.monotonic()) >= self._told + LINE_SECONDS:
            self._told = now
            report(text)


def progress_text(progress: Progress, words: Translator) -> str:
    """Return the section, the step or the stage, and the remaining time where it is known."""
    in_steps = progress.stage == "sampling" and progress.step
    text = (
        words("progress.step", step=progress.step, steps=progress.steps)
        if in_steps
        else progress.stage_text(words)
    )
    if progress.stage in ("sampling", "decoding"):
        section = words("progress.section", number=progress.section + 1, sections=progress.sections)
        text = words("live.status", section=section, stage=text)
    if progress.seconds_left is None:
        return text
    return words("progress.left", text=text, time=format_duration(progress.seconds_left, words))


def advance(bar: tqdm, event: events.StepDone) -> None:
    """Move a bar to a step: back, where a section is made once more."""
    ahead = (event.sections - event.section) * event.steps  # at the section's beginning
    bar.total = bar.total or ahead
    bar.bar_format = SAMPLING
    bar.update(bar.total - ahead + event.step - bar.n)


def _width(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's options: the terminal's width, or a default where it reports none (tqdm's would be 0)."""
    try:
        has_width = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        has_width = False
    return {"dynamic_ncols": True} if has_width else {"ncols": DEFAULT_WIDTH, "nrows": DEFAULT_HEIGHT}

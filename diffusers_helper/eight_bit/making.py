"""The conversion of the transformer to 8-bit weights as a stage of a job: its folder and its events.

`conversion` writes the files. Knows no request.
"""

import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from ..errors import InputError, MachineError, StopRequested
from ..events import Notice, StageProgress, StageStarted
from ..files.exclusive_lock import exclusive_lock
from ..machine_errors import machine_errors
from ..weights.model_files import ModelPart
from .conversion import conversion_state, convert, eight_bit_folder

LOCK = "lock"
LOOK_SECONDS = 0.2
"""Seconds between two looks at the progress of the conversion and at the stop."""


def choose_root(source: ModelPart, roots: Sequence[Path]) -> Path:
    """Choose the root of a transformer's 8-bit weights: the first that has all of them, else the first that
    can be written, else the last. Raises OSError."""
    for root in roots:
        if conversion_state(eight_bit_folder(root), source) == "complete":
            return root
    return next((root for root in roots if _can_write(root)), roots[-1])


def _can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, or in the one in which it will be made."""
    folder = folder.absolute()
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    try:
        with tempfile.TemporaryFile(dir=there):
            return there is not None
    except OSError:
        return False


def make_eight_bit(
    source: ModelPart, folder: Path, stop: threading.Event
) -> Generator[Notice | StageStarted | StageProgress, None, None]:
    """Make the 8-bit weights in `folder`, or go on with them, and yield the progress.

    The finished files stay however it ends, also when the caller wants no more events.

    Raises:
        StopRequested: `stop` was set.
        InputError: another process is making them; the source cannot be used.
        MachineError: the disk is full, cannot be read or written, or gives back something else.
    """
    if stop.is_set():
        raise StopRequested
    yield Notice("eight_bit", {"path": str(folder)})
    yield StageStarted("eight_bit")
    busy = InputError("eight_bit_busy", path=str(folder))  # two would delete each other's files
    with (
        machine_errors(folder),
        exclusive_lock(folder / LOCK, busy),
        ThreadPoolExecutor(1, "eight-bit") as pool,
    ):
        latest, ended = _Latest(), threading.Event()
        work = pool.submit(convert, source, folder, latest.update, ended)
        try:
            yield from _watch(work, latest, stop, ended)
        finally:
            ended.set()
    try:
        work.result()
    except MachineError as error:
        if error.code != "disk_too_small":
            raise
        needed, free = error.values["needed"], error.values["free"]
        raise MachineError("eight_bit_disk_too_small", path=str(folder), needed=needed, free=free) from error


class _Latest:
    """The progress of the conversion, handed from its thread to the one that yields events."""

    percent = 0

    def update(self, done: int, total: int) -> None:
        self.percent = 100 * done // max(total, 1)


def _watch(
    work: Future[None], latest: _Latest, stop: threading.Event, ended: threading.Event
) -> Iterator[StageProgress]:
    reported = -1
    while not work.done():
        if stop.is_set():
            ended.set()
        if latest.percent != reported:
            reported = latest.percent
            yield StageProgress(reported / 100)
        wait([work], LOOK_SECONDS)

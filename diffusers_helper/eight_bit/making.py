"""The conversion of the transformer to 8-bit weights as a stage of a job: its folder and its events.

`conversion` writes the files. Knows no request.
"""

import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch

from ..errors import InputError, MachineError, StopRequested
from ..events import Notice, StageProgress, StageStarted
from ..files.exclusive_lock import exclusive_lock
from ..weights.model_files import ModelPart
from .conversion import convert, eight_bit_folder, is_converted

LOCK = "lock"


def choose_root(source: ModelPart, roots: Sequence[Path]) -> Path:
    """Choose the root of a transformer's 8-bit weights: the first that has all of them, else the first that
    can be written, else the last. Raises OSError."""
    for root in roots:
        if is_converted(eight_bit_folder(root), source):
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
    source: ModelPart, folder: Path, device: torch.device, stop: threading.Event
) -> Generator[Notice | StageStarted | StageProgress, None, None]:
    """Make the 8-bit weights in `folder` on `device`, or go on with them, and yield the progress.

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
    reported = -1
    try:
        with exclusive_lock(folder / LOCK, busy), closing(convert(source, folder, device)) as progress:
            for done, total in progress:
                if stop.is_set():
                    raise StopRequested
                percent = 100 * done // total
                if percent != reported:
                    reported = percent
                    yield StageProgress(percent / 100)
    except MachineError as error:
        if error.code != "disk_too_small":
            raise
        needed, free = error.values["needed"], error.values["free"]
        raise MachineError("eight_bit_disk_too_small", path=str(folder), needed=needed, free=free) from error

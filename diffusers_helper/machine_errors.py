"""The machine's errors (memory, disk) as errors that a person can act on."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import MachineError
from .files.disk_errors import disk_errors
from .memory import is_out_of_memory


@contextlib.contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Convert running out of memory, and errors of the disk with `folder`, to a MachineError."""
    try:
        with disk_errors(folder):
            yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise MachineError("out_of_memory") from error
        raise


def check_room(folder: Path, needed: int) -> None:
    """Raise MachineError where the folder's disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError("disk_too_small", path=str(folder), needed=_size(needed), free=_size(free))


def _size(count: int) -> str:
    """Format bytes; the units are the same words in all our languages."""
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"

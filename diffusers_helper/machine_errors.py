"""The machine's own errors, given names that a person can act on."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import MachineError
from .memory import is_out_of_memory


@contextlib.contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Give the machine's own errors a name that a person can act on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise MachineError("out_of_memory") from error
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MachineError("disk_full", path=str(folder)) from error
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(error.filename or folder), reason=reason) from error


def check_room(folder: Path, needed: int) -> None:
    """Raises MachineError where the folder's disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError("disk_too_small", path=str(folder), needed=_size(needed), free=_size(free))


def _size(count: int) -> str:
    """Bytes as a person reads them; the units are the same words in all our languages."""
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"

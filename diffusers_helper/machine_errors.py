"""The machine's own errors, given names that a person can act on."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import MachineError
from .system_memory import is_out_of_memory


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
        raise MachineError(
            "disk_too_small", path=str(folder), needed=f"{needed / 2**30:.2f}", free=f"{free / 2**30:.2f}"
        )

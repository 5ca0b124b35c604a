"""Errors of the disk, with codes that a person can act on."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ..errors import MachineError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, and of a user who has used up a share of it."""


@contextlib.contextmanager
def disk_errors(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Convert an OSError in the block to a MachineError: `disk_full` or `cannot_write`.

    Args:
        folder: is named where the disk is full.
        file: is named where it cannot be written; None for the file that the error names, else the folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise MachineError("disk_full", path=str(folder)) from error
        path, reason = file or error.filename or folder, error.strerror or str(error)
        raise MachineError("cannot_write", path=str(path), reason=reason) from error

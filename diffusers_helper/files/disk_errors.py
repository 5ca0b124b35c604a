"""Errors of the disk, with codes that a person can act on."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ..errors import ErrorCode, MachineError

DISK_CODES: dict[int | None, ErrorCode] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_quota",
    errno.EFBIG: "disk_file_limit",
    errno.EROFS: "disk_read_only",
}
"""The codes of what is wrong with a disk itself, by the system's error numbers."""


@contextlib.contextmanager
def disk_errors(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Convert an OSError in the block to a MachineError: one of `DISK_CODES` or `cannot_write`.

    Args:
        folder: is named where it is the disk.
        file: is named where it cannot be written; None for the file that the error names, else the folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_CODES:
            raise MachineError(DISK_CODES[error.errno], path=str(folder)) from error
        path, reason = file or error.filename or folder, error.strerror or str(error)
        raise MachineError("cannot_write", path=str(path), reason=reason) from error

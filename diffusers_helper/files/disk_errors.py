"""Errors of the disk, with codes that a person can act on."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ..errors import ErrorCode, MachineError

LIMITS: dict[int | None, ErrorCode] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_quota",
    errno.EFBIG: "disk_file_limit",
    errno.EROFS: "disk_read_only",
    **dict.fromkeys((errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH), "disk_away"),
    **dict.fromkeys((errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNABORTED, errno.ECONNRESET), "disk_away"),
    **dict.fromkeys((errno.ESTALE, errno.ENODEV, errno.ENXIO), "disk_away"),
}
"""The codes of what is wrong with a disk itself, by the system's error numbers."""
PATHS: dict[int | None, ErrorCode] = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "no_permission"),
    errno.ENOENT: "path_gone",
    errno.ENAMETOOLONG: "path_too_long",
    errno.EILSEQ: "name_refused",
}
"""The codes of what is wrong with a file or a folder."""
WINDOWS: dict[int | None, ErrorCode] = {
    19: "disk_read_only",
    **dict.fromkeys((39, 112), "disk_full"),
    223: "disk_file_limit",
    1295: "disk_quota",
    **dict.fromkeys((21, 51, 53, 54, 55, 59, 64, 67, 121, 1167, 1231, 1232, 1236), "disk_away"),
    123: "name_refused",
    206: "path_too_long",
}
"""The same by Windows' own numbers, most of which Python takes for EINVAL, EACCES or ENOENT."""

NOTHING_OPENS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""The error numbers of a system that has no room for another open file."""


def disk_code(error: OSError) -> ErrorCode:
    """Return the code of what the system reports; `cannot_write` for all that has no sentence of its own."""
    own = WINDOWS.get(getattr(error, "winerror", None))
    if error.errno == errno.EINVAL and error.filename is not None:  # FAT's answer to a name with a colon
        own = own or "name_refused"
    return own or LIMITS.get(error.errno) or PATHS.get(error.errno, "cannot_write")


def is_limit(error: OSError) -> bool:
    """Return whether it is the disk itself that takes nothing, whatever the file's name."""
    return disk_code(error) in LIMITS.values()


@contextlib.contextmanager
def disk_errors(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Convert an OSError in the block to a MachineError with the code of `disk_code`.

    Args:
        folder: is named where it is the disk.
        file: is named where it cannot be written; None for the file that the error names, else the folder.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, folder, file) from error


def disk_error(error: OSError, folder: Path, file: Path | None = None) -> MachineError:
    """Return the MachineError that `disk_errors` raises."""
    code = disk_code(error)
    path = folder if is_limit(error) else file or error.filename or folder
    reasons = {"reason": error.strerror or str(error)} if code in ("cannot_write", "no_permission") else {}
    return MachineError(code, path=str(path), **reasons)

"""Files that are there completely or not at all, also after a power cut."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""What file systems answer that have nothing to flush."""


@contextlib.contextmanager
def whole_file(path: Path, flush: bool = True) -> Iterator[Path]:
    """`with whole_file(path) as part`: write `part`; it becomes `path` if all goes well, else it goes.

    Without `flush`, a power cut may leave nothing or half of it: for what can be made again.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        if flush:
            _flush(part, os.O_RDWR)  # else a power cut may leave the new name with nothing in it
        part.replace(path)
        if flush and os.name == "posix":  # Windows opens no folder, and journals its entries
            _flush(path.parent, os.O_RDONLY)
    finally:
        with contextlib.suppress(OSError):  # on Windows a failed writer may still hold it
            part.unlink(missing_ok=True)


def _flush(path: Path, flags: int) -> None:
    """Have the system write to the disk what it still keeps in memory."""
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)

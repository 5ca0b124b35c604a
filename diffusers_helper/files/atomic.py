"""Files that are there completely or not at all, also after a power cut."""

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .disk_errors import disk_errors

CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""Error numbers of file systems that have nothing to flush."""
PAUSES = (0.05, 0.2, 0.5, 1.0)
"""Seconds between tries to change a file: on Windows, virus scanners hold a new one for a moment."""


@contextlib.contextmanager
def atomic_write(path: Path, flush: bool = True) -> Iterator[Path]:
    """Yield the name of a part to write, which replaces `path` if the block ends well, else is deleted.

    Without `flush`, a power cut may leave nothing or half of it: for what can be made again.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        if flush:
            _flush(part, os.O_RDWR)  # else a power cut may leave the new name with nothing in it
        replace_file(part, path)
        if flush and os.name == "posix":  # Windows opens no folder, and journals its entries
            _flush(path.parent, os.O_RDONLY)
    finally:
        with contextlib.suppress(OSError):  # on Windows a failed writer may still hold it
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Do `atomic_write` in a folder that is made if it is missing.

    Raises:
        MachineError: the file cannot be written.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, flush) as part:
            yield part


def read_small(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or something that may never end, as a pipe.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) or status.st_size > most:
        raise ValueError(f"no file of at most {most} bytes")
    return path.read_bytes()


def replace_file(source: Path, target: Path) -> None:
    """Rename a file over another one, patiently."""
    _patiently(partial(source.replace, target))


def delete_file(path: Path) -> None:
    """Delete a file if it is there, patiently."""
    _patiently(partial(path.unlink, missing_ok=True))


def _patiently(change: Callable[[], Any]) -> Any:
    """Change a file; where Windows refuses because somebody has it open, try again."""
    for pause in PAUSES:
        try:
            return change()
        except PermissionError:
            if sys.platform != "win32":
                raise
        time.sleep(pause)
    return change()


def _flush(path: Path, flags: int) -> None:
    """Have the system write to the disk what it still keeps in memory."""
    descriptor = _patiently(partial(os.open, path, flags | getattr(os, "O_BINARY", 0)))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)

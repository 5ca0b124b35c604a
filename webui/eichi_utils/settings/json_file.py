"""A small JSON file that the app keeps between two starts: read, found broken, set aside, written whole.

Knows nothing of what is in it. A broken file is never fatal and never lost: it is renamed, and the fact is
kept as a notice for the page.
"""

import contextlib
import errno
import json
import logging
import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from diffusers_helper.files.atomic import atomic_write

logger = logging.getLogger(__name__)

MAX_BYTES = 16 * 2**20
"""No settings are that large: a file above it is some other file, or grew by a fault."""
_PAUSES = (0.05, 0.2, 0.5)
"""Seconds to wait before another try: virus scanners hold a new file for a moment on Windows."""
Stamp = tuple[int, int, int]


class JsonFile:
    """One JSON file. `check` says whether a value read from it has the shape that is expected.

    Not locked: its owner sees to it that one thread at a time uses it. `notices` tells what went wrong
    while reading, each fact once.
    """

    def __init__(self, path: Path, check: Callable[[object], bool]) -> None:
        self.path = path
        self.notices: list[Notice] = []
        self._check = check
        self._stamp: Stamp | None = None
        self._must_read = True

    def has_changed(self) -> bool:
        """Whether the file may hold something else than was last read or written here."""
        return self._must_read or self._stamp != _stamp(self.path)

    def read(self) -> object | None:
        """What the file holds; None where there is none, or none that can be used.

        A broken file (not UTF-8, not JSON, of another shape, too large) is renamed. One that can be neither
        read nor renamed stays where it is, and `write` will not overwrite it.
        """
        self._must_read = False
        stamp = _stamp(self.path)
        try:
            value = self._parse()
        except FileNotFoundError:
            value = None
        except OSError as error:
            value = None
            self._block(error)
        except (ValueError, RecursionError) as error:
            logger.warning("%s is broken: %s", self.path, error)
            stamp, value = None, None
            self._set_aside()
        self._stamp = stamp
        return value

    def write(self, value: object) -> None:
        """Replace the file by `value`, whole or not at all. A missing folder is made. To be read first.

        Raises:
            MachineError: it cannot be written, or what is there could not be read and is not overwritten.
        """
        if self._must_read:
            raise MachineError("file_in_the_way", path=str(self.path))
        data = _encode(value)
        if len(data) > MAX_BYTES:
            raise MachineError("file_too_full", path=str(self.path), megabytes=MAX_BYTES // 2**20)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stamp = _write_patiently(self.path, data)
        except OSError as error:
            raise _machine_error(error, self.path) from error

    def _parse(self) -> object:
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{status.st_size} bytes")
        text = self.path.read_bytes().decode("utf-8-sig")  # Windows editors put a mark in front
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if not self._check(value):
            raise ValueError("not the expected shape")
        return value

    def _set_aside(self) -> None:
        free = _free_name(self.path)
        try:
            self.path.rename(free)
        except FileNotFoundError:  # another process was quicker
            return
        except OSError as error:
            self._block(error)
        else:
            self._tell(Notice("file_set_aside", {"path": str(self.path), "kept": free.name}))

    def _block(self, error: OSError) -> None:
        self._must_read = True
        reason = error.strerror or str(error)
        self._tell(Notice("file_unusable", {"path": str(self.path), "reason": reason}))

    def _tell(self, notice: Notice) -> None:
        if notice not in self.notices:
            self.notices.append(notice)


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file is written; None where there is none that can be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _free_name(path: Path) -> Path:
    """`name.broken-1.json`, counted up to one that nothing has."""
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.stem}.broken-{number}{path.suffix}")):
        number += 1
    return free


def _finite(number: str) -> float:
    """Python reads `NaN`, `Infinity` and `1e999`, but they could not be written again as JSON."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _encode(value: object) -> bytes:
    """Readable UTF-8. Only a text with half a character in it (from an old file) is written as escapes."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(value, indent=2, allow_nan=False)}\n".encode()


def _write_patiently(path: Path, data: bytes) -> Stamp | None:
    """Write at once; where somebody else has the file open just now (Windows), after a moment."""
    for pause in _PAUSES:
        with contextlib.suppress(FileNotFoundError):  # two processes wrote it at the same moment
            try:
                return _write(path, data)
            except PermissionError as error:
                if getattr(error, "winerror", None) is None:
                    raise
        time.sleep(pause)
    return _write(path, data)


def _write(path: Path, data: bytes) -> Stamp | None:
    """The stamp is taken before others can see the file: what they write after us is a change."""
    with atomic_write(path) as part:
        part.write_bytes(data)
        return _stamp(part)


def _machine_error(error: OSError, path: Path) -> MachineError:
    if error.errno == errno.ENOSPC:
        return MachineError("disk_full", path=str(path.parent))
    return MachineError("cannot_write", path=str(path), reason=error.strerror or str(error))

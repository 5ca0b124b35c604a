"""A small JSON file that the app keeps between two starts: read once, set aside where broken, written whole.

A broken file is never fatal and never lost.
"""

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from diffusers_helper.public import atomic_write, disk_errors

logger = logging.getLogger(__name__)

MAX_BYTES = 16 * 2**20
"""Bytes that no settings reach: a larger file is some other file, or grew by a fault."""


class JsonFile:
    """One JSON object in a file, read when this object is made: `app.lock` keeps other apps away from it.

    Its `value` is None where there is none that can be used; `notices` report why. A broken file (not UTF-8
    or JSON, no object or one that `check` refuses, too large) is renamed. One that can be neither read nor
    renamed stays where it is, and is not overwritten. One thread at a time may use it.
    """

    def __init__(self, path: Path, check: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        self.path = path
        self.value: dict[str, Any] | None = None
        self.notices: list[Notice] = []
        self._is_blocked = False
        try:
            value = _read(path)
            if not isinstance(value, dict) or not check(value):
                raise ValueError("not the expected shape")
            self.value = value
        except FileNotFoundError:
            pass
        except OSError as error:
            self._block(error)
        except (ValueError, RecursionError) as error:
            logger.warning("%s is broken: %s", path, error)
            self._set_aside()

    def write(self, value: object) -> None:
        """Replace the file by `value`, whole or not at all. A missing folder is made.

        Raises:
            MachineError: it cannot be written, or what is there could not be read and is not overwritten.
        """
        if self._is_blocked and os.path.lexists(self.path):
            raise MachineError("file_in_the_way", path=str(self.path))
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape
        if len(data) > MAX_BYTES:
            raise MachineError("file_too_full", path=str(self.path), megabytes=MAX_BYTES // 2**20)
        with disk_errors(self.path.parent, self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as part:
                part.write_bytes(data)

    def _set_aside(self) -> None:
        names = (f"{self.path.stem}.broken-{number}{self.path.suffix}" for number in itertools.count(1))
        free = next(path for name in names if not os.path.lexists(path := self.path.with_name(name)))
        try:
            self.path.rename(free)
            self.notices.append(Notice("file_set_aside", {"path": str(self.path), "kept": free.name}))
        except OSError as error:
            self._block(error)

    def _block(self, error: OSError) -> None:
        self._is_blocked = True
        reason = error.strerror or str(error)
        self.notices.append(Notice("file_unusable", {"path": str(self.path), "reason": reason}))


def _read(path: Path) -> object:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size} bytes")
    value = json.loads(path.read_bytes().decode("utf-8-sig"))  # Windows editors put a mark in front
    json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, but they could not be written again
    return value

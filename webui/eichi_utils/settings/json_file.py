"""A small JSON file that the app keeps between two starts: read once, written whole, and where it is broken
set aside, so that it is neither fatal nor lost."""

import itertools
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from diffusers_helper.public import atomic_write, disk_errors, read_small

logger = logging.getLogger(__name__)

MAX_BYTES = 16 * 2**20
"""Bytes that no settings reach: a larger file is some other file, or grew by a fault."""


class JsonFile:
    """One JSON object in a file, read when this object is made: `app.lock` keeps other apps away from it.

    `value` is the result of `parse`, later what was written; empty where nothing can be used, and `notices`
    report why. A broken file (not UTF-8 or JSON, `parse` fails, too large) is renamed. One that cannot be
    read or renamed stays where it is, and is not overwritten. Threads that write hold the `lock`.
    """

    def __init__(self, path: Path, parse: Callable[[Any], dict] = lambda value: {**value}) -> None:
        self.path = path
        self.value: dict[str, Any] = {}
        self.notices: list[Notice] = []
        self.lock = threading.Lock()
        try:
            self._read(parse)
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or str(error)
            self.notices.append(Notice("file_unusable", {"path": str(path), "reason": reason}))

    def write(self, value: dict[str, Any]) -> None:
        """Replace the file by `value`, whole or not at all. A missing folder is made.

        Raises:
            MachineError: it cannot be written, or what is there could not be read and is not overwritten.
        """
        if os.path.lexists(self.path) and "file_unusable" in [notice.code for notice in self.notices]:
            raise MachineError("file_in_the_way", path=str(self.path))
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape
        if len(data) > MAX_BYTES:
            raise MachineError("file_too_full", path=str(self.path), megabytes=MAX_BYTES // 2**20)
        with disk_errors(self.path.parent, self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as part:
                part.write_bytes(data)
        self.value = value

    def _read(self, parse: Callable[[Any], dict]) -> None:
        try:
            text = read_small(self.path, MAX_BYTES).decode("utf-8-sig")  # Windows editors mark UTF-8
            value = json.loads(text)
            if _depth(value) > 100:  # to copy and write it, each level takes several calls
                raise ValueError("too deep")
            json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, but writes neither as JSON
            self.value = parse(value)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            logger.warning("%s is broken: %s", self.path, error)
            names = (f"{self.path.stem}.broken-{number}{self.path.suffix}" for number in itertools.count(1))
            free = next(path for name in names if not os.path.lexists(path := self.path.with_name(name)))
            self.path.rename(free)
            self.notices.append(Notice("file_set_aside", {"path": str(self.path), "kept": free.name}))


def _depth(value: object) -> int:
    """Return how deep lists and objects lie in each other; RecursionError where that is very deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)

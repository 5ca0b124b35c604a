"""The settings that the app remembers from one start to the next, by code.

Which settings there are, their defaults and what each may hold is handed in as a table.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers_helper.events import Notice

from .json_file import JsonFile

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Field:
    """One setting: its default, and the check that a value (from JSON) must pass.

    A check that raises counts as False.
    """

    default: Any
    check: Callable[[Any], bool]

    def takes(self, value: object) -> bool:
        """Return whether `value` may be this setting."""
        try:
            json.dumps(value, allow_nan=False)
            return bool(self.check(value))
        except (TypeError, ValueError, RecursionError):
            return False


class SettingsStore:
    """The settings in one JSON file, a flat object of texts, numbers, flags. Safe to use from any thread.

    What the table does not know, or may not hold, stays in the file: a newer version may. `notices` name what
    could not be read: the file itself, or single settings, which have their default then.
    """

    def __init__(self, path: Path, fields: Mapping[str, Field]) -> None:
        self._file = JsonFile(path)
        self._fields = fields
        self._stored = self._file.value or {}
        self._values = {key: field.default for key, field in fields.items()}
        self.notices = list(self._file.notices)
        for key, value in self._stored.items():
            if key in fields and fields[key].takes(value):
                self._values[key] = value
            elif key in fields:
                shown: dict[str, object] = {"setting": key, "value": str(value)[:SHOWN_CHARACTERS]}
                self.notices.append(Notice("setting_unusable", shown))
        self._lock = threading.Lock()

    def load(self) -> dict[str, Any]:
        """Return every setting of the table: as it was kept, else (or where unusable) its default."""
        with self._lock:
            return dict(self._values)

    def update(self, /, **changes: Any) -> None:
        """Change the settings that may hold these values, and keep them; writes only what is new.

        Raises:
            MachineError: it cannot be written; the changes hold until the app ends.
        """
        changes = {key: value for key, value in changes.items() if self._fields[key].takes(value)}
        with self._lock:
            stored = {key: field.default for key, field in self._fields.items()} | self._stored
            new = {key: value for key, value in changes.items() if repr(stored[key]) != repr(value)}
            if new:
                self._stored |= new
                self._values |= new
                self._file.write(self._stored)

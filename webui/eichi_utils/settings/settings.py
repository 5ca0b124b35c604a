"""The settings that the app remembers from one start to the next, by code.

Which settings there are, their defaults and what each may hold is handed in as a table.
"""

import copy
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
    """The settings in one JSON file, a flat object. Safe to use from any thread.

    What the table does not know, or may not hold, stays in the file: a newer version may. `notices` name what
    could not be read: the file itself, or single settings, which have their default then.
    """

    def __init__(self, path: Path, fields: Mapping[str, Field]) -> None:
        self._file = JsonFile(path, lambda value: isinstance(value, dict))
        self._fields = fields
        self._stored: dict[str, Any] = self._file.value if isinstance(self._file.value, dict) else {}
        known = {key: value for key, value in self._stored.items() if key in fields}
        unusable = {key: value for key, value in known.items() if not fields[key].takes(value)}
        self.notices = list(self._file.notices)
        for key, value in unusable.items():
            shown: dict[str, object] = {"setting": key, "value": str(value)[:SHOWN_CHARACTERS]}
            self.notices.append(Notice("setting_unusable", shown))
        self._unusable = set(unusable)
        self._lock = threading.Lock()

    def load(self) -> dict[str, Any]:
        """Return every setting of the table: as it was kept, else (or where unusable) its default."""
        with self._lock:
            return {key: copy.deepcopy(self._effective(key)) for key in self._fields}

    def update(self, /, **changes: Any) -> None:
        """Change settings and keep them; nothing is written where nothing is new.

        Raises:
            ValueError: there is no such setting, or it may not hold that value.
            MachineError: it cannot be written; the changes hold until the app ends.
        """
        for key, value in changes.items():
            if key not in self._fields or not self._fields[key].takes(value):
                raise ValueError(f"{key}={value!r}")
        with self._lock:
            new = {
                key: copy.deepcopy(value)
                for key, value in changes.items()
                if key in self._unusable or self._effective(key) != value
            }
            if new:
                self._stored |= new
                self._unusable -= new.keys()
                self._file.write(self._stored)

    def _effective(self, key: str) -> Any:
        is_usable = key in self._stored and key not in self._unusable
        return self._stored[key] if is_usable else self._fields[key].default

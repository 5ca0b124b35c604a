"""The settings that the app remembers from one start to the next, by code.

Which settings there are, their defaults and what each may hold is handed in as a table.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers_helper.events import Notice

from .json_file import JsonFile

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Field:
    """One setting: its default, and the check that a value (from JSON) must pass, and which may raise."""

    default: Any
    check: Callable[[Any], bool]

    def takes(self, value: object) -> bool:
        """Return whether `value` may be this setting."""
        try:
            json.dumps(value, allow_nan=False)
            return bool(self.check(value))
        except (TypeError, ValueError, ArithmeticError, RecursionError):
            return False


class SettingsStore(JsonFile):
    """The settings in one JSON file, a flat object of texts, numbers, flags. Safe to use from any thread.

    What the table does not know, or may not hold, stays in the file: a newer version may. `notices` name what
    could not be read: the file itself, or single settings, which have their default then. `renew` turns what
    an earlier version has written into today's.
    """

    def __init__(
        self,
        path: Path,
        fields: Mapping[str, Field],
        renew: Callable[[dict[str, Any]], dict[str, Any]] = lambda value: value,
    ) -> None:
        super().__init__(path)
        self.value = renew(self.value)
        self._fields = fields
        self.defaults = {key: field.default for key, field in fields.items()}
        self._kept = self.defaults | self.value
        for key, field in fields.items():
            if not field.takes(self._kept[key]):
                shown = str(self._kept[key])[:SHOWN_CHARACTERS]
                self.notices.append(Notice("setting_unusable", {"setting": key, "value": shown}))

    def load(self) -> dict[str, Any]:
        """Return every setting of the table: as it was kept, else (or where unusable) its default."""
        kept = self._kept
        usable = {key: kept[key] for key, field in self._fields.items() if field.takes(kept[key])}
        return self.defaults | usable

    def update(self, /, **changes: Any) -> None:
        """Change the settings that may hold these values, and keep them; writes only what is new.

        A change that cannot be written raises MachineError, holds, and is written with the next one.
        """
        changes = {key: value for key, value in changes.items() if self._fields[key].takes(value)}
        with self.lock:
            self._kept = self._kept | changes  # in place, `load` would need the lock, too
            old = self.defaults | self.value
            new = {key: value for key, value in self._kept.items() if repr(value) != repr(old[key])}
            if new:
                self.write(self.value | new)

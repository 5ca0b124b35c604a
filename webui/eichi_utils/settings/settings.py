"""What the app remembers of its settings from one start to the next, by code.

Which settings there are, their defaults and what each may hold is handed in as a table; this room knows
only how they are kept.
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
    """One setting: what it is where nothing was kept, and whether a value (from JSON) may be it.

    A check that fails on a strange value counts as a no.
    """

    default: Any
    check: Callable[[Any], bool]

    def takes(self, value: object) -> bool:
        """Whether `value` may be this setting."""
        try:
            return bool(self.check(value)) and _is_json(value)
        except (TypeError, ValueError):
            return False


class SettingsStore:
    """The settings in one JSON file, a flat object. Safe to use from any thread.

    What the table does not know stays in the file: a newer version may. A second process may use the same
    file; the newest change of each setting wins.
    """

    def __init__(self, path: Path, fields: Mapping[str, Field]) -> None:
        self._file = JsonFile(path, lambda value: isinstance(value, dict))
        self._fields = dict(fields)
        self._kept: dict[str, Any] = {}
        self._is_unwritten = False
        self._notices: list[Notice] = []
        self._lock = threading.RLock()

    @property
    def notices(self) -> list[Notice]:
        """What could not be read so far: the file itself, or single settings that have their default."""
        with self._lock:
            self._refresh()
            return [*self._file.notices, *self._notices]

    def load(self) -> dict[str, Any]:
        """Every setting of the table: as it was kept, else (or where that cannot be used) its default."""
        with self._lock:
            self._refresh()
            return {key: copy.deepcopy(self._effective(key)) for key in self._fields}

    def update(self, /, **changes: Any) -> None:
        """Change settings and keep them; nothing is written where nothing is new.

        Raises:
            ValueError: there is no such setting, or it may not hold that value.
            MachineError: it cannot be written; the changes hold until the app ends or the file changes.
        """
        for key, value in changes.items():
            if key not in self._fields or not self._fields[key].takes(value):
                raise ValueError(f"{key}={value!r}")
        with self._lock:
            self._refresh()
            new = {key: copy.deepcopy(value) for key, value in changes.items() if self._is_new(key, value)}
            if new or self._is_unwritten:
                self._kept |= new
                self._is_unwritten = True
                self._file.write(self._kept)
                self._is_unwritten = False

    def _refresh(self) -> None:
        """Read the file if it may have changed; one that cannot be read leaves what is known."""
        if not self._file.has_changed():
            return
        value = self._file.read()
        if isinstance(value, dict):
            self._kept = value
            self._is_unwritten = False
            self._note_unusable()

    def _note_unusable(self) -> None:
        for key in self._fields.keys() & self._kept.keys():
            if not self._fields[key].takes(self._kept[key]):
                shown = str(self._kept[key])[:SHOWN_CHARACTERS]
                notice = Notice("setting_unusable", {"setting": key, "value": shown})
                if notice not in self._notices:
                    self._notices.append(notice)

    def _effective(self, key: str) -> Any:
        field = self._fields[key]
        return self._kept[key] if key in self._kept and field.takes(self._kept[key]) else field.default

    def _is_new(self, key: str, value: Any) -> bool:
        """Also where it is the default, but the file holds something that cannot be used."""
        has_broken = key in self._kept and not self._fields[key].takes(self._kept[key])
        return has_broken or self._effective(key) != value


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True

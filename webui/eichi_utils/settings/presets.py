"""Prompts kept under a name, one of them maybe the start-up prompt, in a file of the predecessor's format."""

import copy
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from diffusers_helper.errors import InputError

from .json_file import JsonFile

MAX_NAME = 100
PREDECESSOR_STARTUP = "起動時デフォルト"
"""The name under which the predecessor lists its start-up prompt."""
_INVISIBLE = {"Cc", "Cs", "Zl", "Zp"}
"""The Unicode categories refused in a name; not Cf: the joiners inside of emoji are among them."""
Entry = dict[str, Any]


class PresetStore(JsonFile):
    """The presets in one JSON file. Safe to use from any thread.

    Entries that are no presets, and keys that are not known here, stay in the file. Where there is no file,
    `starters` (names and prompts) are the presets; the first change writes them. Methods raise InputError for
    a name that no preset has, and MachineError where a change cannot be written; nothing has changed then.
    """

    def __init__(self, path: Path, starters: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(path, _parse)
        self.value = self.value or {"presets": [_new_entry(*starter) for starter in starters]}
        self._before = self.value
        self.changes = 0
        """The number of changes since this object was made."""

    def names(self) -> list[str]:
        """Return the names in the order of the file."""
        return list(_by_name(self.value))

    def prompt_of(self, name: str) -> str:
        """Return the prompt of a preset, exactly as it was saved."""
        return str(_find(self.value, name)["prompt"])

    def startup_name(self) -> str | None:
        """Return the name of the preset that is the start-up prompt; None where none is marked."""
        return _startup_name(self.value)

    def save(self, name: str, prompt: str) -> bool:
        """Keep a prompt under a name; returns whether it replaced one. InputError refuses blank ones."""
        if not prompt.strip():
            raise InputError("preset_without_prompt")
        with self._changing() as content:
            presets = _by_name(content)
            known = name if name in presets else _check_name(name)
            if known in presets:
                presets[known].update(prompt=prompt, timestamp=datetime.now().isoformat())
            else:
                content["presets"].append(_new_entry(known, prompt))
        return known in presets

    def delete(self, name: str) -> None:
        """Forget a preset. If it was the start-up prompt, there is none from now on."""
        with self._changing() as content:
            _find(content, name)
            content["presets"] = [e for e in content["presets"] if not _is_preset(e) or e["name"] != name]

    def mark_startup(self, name: str | None) -> None:
        """Make a preset the start-up prompt; None: there shall be none."""
        with self._changing() as content:
            for entry in filter(_is_preset, content["presets"]):
                entry.pop("is_startup_default", None)
            if name is not None:
                _find(content, name)["is_startup_default"] = True

    def undo(self, change: int) -> bool:
        """Take the last change back; False where it is not the one of that number, or was taken back."""
        with self.lock:
            if change != self.changes or self._before is self.value:
                return False
            self.write(self._before)
            return True

    @contextmanager
    def _changing(self) -> Iterator[Entry]:
        """Yield a copy of the content, which replaces it once it is written: readers need no lock."""
        with self.lock:
            before, content = self.value, copy.deepcopy(self.value)
            yield content
            name = _startup_name(content)
            content["default_startup_prompt"] = "" if name is None else _find(content, name)["prompt"]
            self.write(content)
            self._before, self.changes = before, self.changes + 1


def _is_preset(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("name", "prompt"))


def _by_name(content: Entry) -> dict[str, Entry]:
    """Return the presets by their names; of two with the same name, the first."""
    presets: dict[str, Entry] = {}
    for entry in filter(_is_preset, content["presets"]):
        presets.setdefault(entry["name"], entry)
    return presets


def _find(content: Entry, name: str) -> Entry:
    presets = _by_name(content)
    if name not in presets:
        raise InputError("preset_missing", name=name[:MAX_NAME])
    return presets[name]


def _startup_name(content: Entry) -> str | None:
    marked = (name for name, entry in _by_name(content).items() if entry.get("is_startup_default") is True)
    return next(marked, None)


def _parse(value: Entry) -> Entry:
    """Return the file's content; a start-up prompt that the predecessor holds beside the presets is one."""
    content = {"presets": [], **value}
    if not isinstance(content["presets"], list):
        raise TypeError("no list of presets")
    prompt, presets = content.get("default_startup_prompt"), _by_name(content)
    if _startup_name(content) is None and isinstance(prompt, str) and prompt.strip():
        names = (f"{PREDECESSOR_STARTUP} {number}".removesuffix(" 1") for number in itertools.count(1))
        name = next(name for name in names if name not in presets or presets[name]["prompt"] == prompt)
        if name not in presets:
            content["presets"].append(_new_entry(name, prompt))
        _find(content, name)["is_startup_default"] = True
    return content


def _new_entry(name: str, prompt: str) -> Entry:
    return {"name": name, "prompt": prompt, "timestamp": datetime.now().isoformat(), "is_default": False}


def _check_name(name: str) -> str:
    """Return a new preset's name without the blanks around it; InputError for one that cannot be shown."""
    trimmed = name.strip()
    categories = {unicodedata.category(character) for character in trimmed}
    can_be_seen = any(category[0] not in "CZ" for category in categories)
    if not can_be_seen or categories & _INVISIBLE or len(trimmed) > MAX_NAME:
        raise InputError("bad_preset_name", name=trimmed[:MAX_NAME], length=MAX_NAME)
    return trimmed

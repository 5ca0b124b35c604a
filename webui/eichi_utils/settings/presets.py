"""Prompts kept under a name; one of them may be the start-up prompt.

The file is the forerunner's, so that its users keep theirs. Knows no page and no language: the presets to
begin with are handed in.
"""

import copy
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from diffusers_helper.errors import InputError
from diffusers_helper.events import Notice

from .json_file import JsonFile

MAX_NAME = 100
FORERUNNER_STARTUP = "起動時デフォルト"
"""The name under which the forerunner lists its start-up prompt."""
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Not Cf: the joiners inside of emoji are among them."""
Entry = dict[str, Any]


class PresetStore:
    """The presets in one JSON file. Safe to use from any thread; a second process may use the same file.

    Entries that are no presets, and keys that are not known here, stay in the file. Where there is no file,
    `starters` (names and prompts) are the presets; the first change writes them.
    """

    def __init__(self, path: Path, starters: Sequence[tuple[str, str]] = ()) -> None:
        self._file = JsonFile(path, _is_preset_file)
        self._content: Entry = {"presets": [_new_entry(name, prompt) for name, prompt in starters]}
        self._lock = threading.RLock()

    @property
    def notices(self) -> list[Notice]:
        """What went wrong while reading the file."""
        with self._lock:
            self._refresh()
            return list(self._file.notices)

    def names(self) -> list[str]:
        """The names in the order of the file, each once."""
        with self._lock:
            self._refresh()
            return list(dict.fromkeys(entry["name"] for entry in _entries(self._content)))

    def prompt_of(self, name: str) -> str:
        """The prompt of a preset, exactly as it was saved.

        Raises:
            InputError: there is none of that name.
        """
        with self._lock:
            self._refresh()
            prompt: str = _find(self._content, name)["prompt"]
            return prompt

    def save(self, name: str, prompt: str) -> bool:
        """Keep a prompt under a name; returns whether it replaced one.

        Raises:
            InputError: the name or the prompt cannot be used.
            MachineError: the file cannot be written; nothing has changed.
        """
        if not prompt.strip():
            raise InputError("preset_without_prompt")
        with self._changing() as content:
            known = name if name in _names(content) else _check_name(name)
            if replaces := known in _names(content):
                _find(content, known).update(prompt=prompt, timestamp=_now())
            else:
                content["presets"].append(_new_entry(known, prompt))
        return replaces

    def delete(self, name: str) -> None:
        """Forget a preset. If it was the start-up prompt, there is none from now on.

        Raises:
            InputError: there is none of that name.
            MachineError: the file cannot be written; nothing has changed.
        """
        with self._changing() as content:
            _find(content, name)
            content["presets"] = [
                entry for entry in content["presets"] if not (_is_preset(entry) and entry["name"] == name)
            ]

    def mark_startup(self, name: str | None) -> None:
        """Make a preset the start-up prompt; None: there shall be none.

        Raises:
            InputError: there is none of that name.
            MachineError: the file cannot be written; nothing has changed.
        """
        with self._changing() as content:
            chosen = None if name is None else _find(content, name)
            for entry in _entries(content):
                if entry is chosen:
                    entry["is_startup_default"] = True
                else:
                    entry.pop("is_startup_default", None)

    def startup_name(self) -> str | None:
        """The name of the preset that is the start-up prompt."""
        with self._lock:
            self._refresh()
            entry = _startup(self._content)
            return None if entry is None else entry["name"]

    def startup_prompt(self) -> str | None:
        """The prompt that the page begins with; None where none was marked."""
        with self._lock:
            self._refresh()
            entry = _startup(self._content)
            return None if entry is None else entry["prompt"]

    @contextmanager
    def _changing(self) -> Iterator[Entry]:
        """A copy of the newest content to change; it counts only when it has been written."""
        with self._lock:
            self._refresh()
            content = copy.deepcopy(self._content)
            yield content
            entry = _startup(content)
            content["default_startup_prompt"] = "" if entry is None else entry["prompt"]
            self._file.write(content)
            self._content = content

    def _refresh(self) -> None:
        """Read the file if it may have changed; one that cannot be read leaves what is known."""
        if not self._file.has_changed():
            return
        value = self._file.read()
        if isinstance(value, dict):
            self._content = {"presets": []} | value
            _adopt_startup_prompt(self._content)


def _is_preset_file(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("presets", []), list)


def _is_preset(entry: object) -> bool:
    texts = (entry.get("name"), entry.get("prompt")) if isinstance(entry, dict) else (None,)
    return all(isinstance(text, str) for text in texts)


def _entries(content: Entry) -> list[Entry]:
    return [entry for entry in content["presets"] if _is_preset(entry)]


def _names(content: Entry) -> set[str]:
    return {entry["name"] for entry in _entries(content)}


def _find(content: Entry, name: str) -> Entry:
    for entry in _entries(content):
        if entry["name"] == name:
            return entry
    raise InputError("preset_missing", name=name[:MAX_NAME])


def _startup(content: Entry) -> Entry | None:
    marked = (entry for entry in _entries(content) if entry.get("is_startup_default") is True)
    return next(marked, None)


def _adopt_startup_prompt(content: Entry) -> None:
    """The forerunner may hold a start-up prompt beside the presets only: make it one of them."""
    prompt = content.get("default_startup_prompt")
    if _startup(content) is not None or not isinstance(prompt, str) or not prompt.strip():
        return
    name, number = FORERUNNER_STARTUP, 1
    while name in _names(content) and _find(content, name)["prompt"] != prompt:
        number += 1
        name = f"{FORERUNNER_STARTUP} {number}"
    if name not in _names(content):
        content["presets"].append(_new_entry(name, prompt))
    _find(content, name)["is_startup_default"] = True


def _new_entry(name: str, prompt: str) -> Entry:
    return {"name": name, "prompt": prompt, "timestamp": _now(), "is_default": False}


def _now() -> str:
    return datetime.now().isoformat()


def _check_name(name: str) -> str:
    """A new preset's name without the blanks around it.

    Raises:
        InputError: it is blank, too long, or has characters that cannot be seen.
    """
    trimmed = name.strip()
    categories = {unicodedata.category(character) for character in trimmed}
    can_be_seen = any(category[0] not in "CZ" for category in categories)
    if not can_be_seen or categories & _UNSEEN or len(trimmed) > MAX_NAME:
        raise InputError("bad_preset_name", name=trimmed[:MAX_NAME], length=MAX_NAME)
    return trimmed

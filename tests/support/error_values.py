"""Checks each error and notice that a test makes the app or its engine raise against its sentence."""

import contextlib
import functools
import json
import string
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusers_helper.errors import EngineError
from diffusers_helper.events import Notice
from webui.eichi_utils.text.translations import LOCALES

WORDS: dict[str, str] = json.loads((LOCALES / "en.json").read_text("utf-8"))
OUR_FOLDERS = tuple(str(LOCALES.parent / name) for name in ("diffusers_helper", "webui"))


def placeholders(text: str) -> set[str]:
    """The names of the values that a text has places for."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@contextlib.contextmanager
def checked_values() -> Iterator[list[str]]:
    """Inside the block, collects the places where an error or a notice has not exactly its sentence's values.

    Errors that tests make themselves may have any.
    """
    wrong: list[str] = []

    def check(group: str, init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def checked(self: Any, *args: Any, **values: Any) -> None:
            init(self, *args, **values)
            frame = sys._getframe(1)
            if not frame.f_code.co_filename.startswith(OUR_FOLDERS):
                return
            text = WORDS.get(f"{group}.{self.code}")
            if text is None or placeholders(text) != set(self.values):
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                wrong.append(f"{place}: {group}.{self.code} has {sorted(self.values)}")

        return checked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineError, "__init__", check("error", EngineError.__init__))
        patch.setattr(Notice, "__init__", check("notice", Notice.__init__))
        yield wrong

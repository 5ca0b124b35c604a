"""Every word the app shows, by a short key, from `locales/`. Knows no other module."""

import json
from functools import cache
from pathlib import Path

LOCALES = Path(__file__).resolve().parents[2] / "locales"


class Translator:
    """The words of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = _load(language)

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of `key` with its placeholders filled."""
        return self._words[key].format(**values)


@cache
def _load(language: str) -> dict[str, str]:
    return json.loads((LOCALES / f"{language}.json").read_text("utf-8"))

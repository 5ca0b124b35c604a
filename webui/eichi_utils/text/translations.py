"""The texts that the app shows, by short keys, from `locales/`."""

import json
import locale
import os
import sys
from functools import cache
from pathlib import Path

LOCALES = Path(__file__).resolve().parents[3] / "locales"
LANGUAGES = ("ja", "en", "zh-tw")
"""The languages in the order in which the page offers them."""
DEFAULT_LANGUAGE = "ja"
_TRADITIONAL = ("tw", "hk", "mo", "hant", "traditional", "taiwan", "hong kong", "macao", "macau")
_SIMPLIFIED = ("hans", "simplified")


class Translator:
    """The texts of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = _load(language)

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the text of `key` with its placeholders filled, which any program can send as UTF-8.

        A file's name may have bytes that are no UTF-8; they become escapes.
        """
        return self._words[key].format(**values).encode("utf-8", "backslashreplace").decode()

    def has(self, key: str) -> bool:
        """Return whether the language has a text of that key."""
        return key in self._words


def system_language() -> str:
    """Return the operating system's language, or Japanese if it is unknown or none of ours."""
    return language_of(_system_locale()) or DEFAULT_LANGUAGE


def language_of(name: str) -> str | None:
    """Return our language for a locale's name (`en_US.UTF-8`, `zh-Hant-HK`, `Japanese_Japan`), or None."""
    parts = name.lower().replace("-", "_").partition(".")[0].split("_")
    if parts[0] in ("ja", "japanese"):
        return "ja"
    if parts[0] in ("en", "english"):
        return "en"
    if parts[0] != "zh" and not parts[0].startswith("chinese"):
        return None
    is_simplified = any(mark in name.lower() for mark in _SIMPLIFIED)
    is_traditional = any(mark in name.lower() for mark in _TRADITIONAL)
    return "zh-tw" if is_traditional and not is_simplified else None


def _system_locale() -> str:
    if sys.platform == "win32":
        import ctypes

        number = ctypes.windll.kernel32.GetUserDefaultUILanguage()
        return locale.windows_locale.get(number, "")
    names = (os.environ.get(key, "") for key in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next((name for name in names if name), "")


@cache
def _load(language: str) -> dict[str, str]:
    return json.loads((LOCALES / f"{language}.json").read_text("utf-8"))

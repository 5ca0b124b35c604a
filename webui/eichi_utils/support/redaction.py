"""Redaction of reports and logs: pictures, secrets, the user's own texts, the name of their home."""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

SHORTEST_HIDDEN, SHORTEST_HIDDEN_BEYOND_ASCII = 4, 2
"""The fewest characters of a text to hide: shorter ones stand in half of all words. In Japanese or Chinese,
two characters are a whole prompt."""
_DATA_URI = re.compile(r"data:[\w/+.-]*(?:;[\w=+.-]+)*,[\w+/=%.~-]*")
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "[token]"),
    (re.compile(r"\b(authorization\W{1,6}\w+)\s+[^\s'\"]+", re.IGNORECASE), r"\1 [secret]"),
    (re.compile(r"(?<=://)[^/@\s'\"]+@"), "[login]@"),
)


def redact(text: str, hide: Iterable[str] = ()) -> str:
    """Return the text without pictures, tokens and logins, with `~` for the user's home.

    Args:
        hide: texts to take out, too, however their quotes and line ends are written.
    """
    for private in sorted({form for text in hide for form in _forms(text)}, key=len, reverse=True):
        if len(private) >= (SHORTEST_HIDDEN if private.isascii() else SHORTEST_HIDDEN_BEYOND_ASCII):
            text = text.replace(private, "[text]")
    text = _DATA_URI.sub("[picture]", text)
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return _shorten_home(text)


@functools.lru_cache(maxsize=2048)  # the log hides the same texts in each record
def _forms(text: str) -> frozenset[str]:
    """Return a text as it is, in Python's and in JSON's quotes, each with its spaces collapsed, too."""
    forms = {text, text.strip()}
    for plain in (text, _collapse(text)):
        quoted = repr(plain), ascii(plain), json.dumps(plain), json.dumps(plain, ensure_ascii=False)
        forms |= {form[1:-1] for form in quoted}
    return frozenset(forms | {_collapse(form) for form in forms})


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _shorten_home(text: str) -> str:
    try:
        home = Path.home()
    except RuntimeError:  # a service may have none
        return text
    if len(home.parts) < 2:  # a root: nobody's name
        return text
    forms = {str(home), home.as_posix(), repr(str(home))[1:-1]}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.sub(rf"(?:{pattern})(?!\w)", "~", text, flags=re.IGNORECASE if home.drive else 0)

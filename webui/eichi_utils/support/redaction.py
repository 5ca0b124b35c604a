"""What stands in no report and no log: pictures, secrets, the user's own texts, the name of their home."""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

SHORTEST_HIDDEN, SHORTEST_HIDDEN_BEYOND_ASCII = 4, 2
"""A text shorter than this tells nothing of anybody, and stands in half of all words. In Japanese or Chinese,
two characters are a whole prompt."""
_DATA_URI = re.compile(r"data:[\w/+.-]*(?:;[\w=+.-]+)*,[\w+/=%.~-]*")
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "[token]"),
    (re.compile(r"\b(authorization\W{1,6}\w+)\s+[^\s'\"]+", re.IGNORECASE), r"\1 [secret]"),
    (re.compile(r"(?<=://)[^/@\s'\"]+@"), "[login]@"),
)


def redact(text: str, hide: Iterable[str] = ()) -> str:
    """The text without pictures, tokens and logins, with `~` for the user's home.

    Args:
        hide: texts that must not stand in it, however quotes and line ends in them are written.
    """
    for private in sorted({way for text in hide for way in _ways(text)}, key=len, reverse=True):
        if len(private) >= (SHORTEST_HIDDEN if private.isascii() else SHORTEST_HIDDEN_BEYOND_ASCII):
            text = text.replace(private, "[text]")
    text = _DATA_URI.sub("[picture]", text)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return _without_home(text)


@functools.lru_cache(maxsize=2048)  # the log hides the same texts in each record
def _ways(text: str) -> frozenset[str]:
    """A text as it is, as Python shows it, and as JSON holds it; each also with its line ends and rows of
    spaces collapsed before or after that."""
    collapsed = _collapsed(text)
    ways = {text, text.strip(), collapsed, *_quoted(text), *_quoted(collapsed)}
    return frozenset(ways | {_collapsed(way) for way in ways})


def _quoted(text: str) -> set[str]:
    """A text as it stands inside of quotes."""
    of_python = repr(text), ascii(text)
    of_json = json.dumps(text), json.dumps(text, ensure_ascii=False)
    return {way[1:-1] for way in (*of_python, *of_json)}


def _collapsed(text: str) -> str:
    return " ".join(text.split())


def _without_home(text: str) -> str:
    try:
        home = Path.home()
    except RuntimeError:  # a service may have none
        return text
    if len(home.parts) < 2:  # a root: nobody's name
        return text
    ways = {str(home), home.as_posix(), repr(str(home))[1:-1]}
    pattern = "|".join(re.escape(way) for way in sorted(ways, key=len, reverse=True))
    return re.sub(rf"(?:{pattern})(?!\w)", "~", text, flags=re.IGNORECASE if home.drive else 0)

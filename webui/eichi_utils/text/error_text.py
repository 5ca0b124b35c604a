"""The sentence of an error in the language of the page."""

from collections.abc import Mapping

from ..support.failures import Failure
from .translations import Translator


def error_text(code: str, values: Mapping[str, object], words: Translator) -> str:
    """Return the sentence of an error code; a request's field gets its name on the page."""
    shown = dict(values)
    field = shown.get("field")
    if isinstance(field, str) and words.has(f"field.{field}"):
        shown["field"] = words(f"field.{field}")
    if isinstance(shown.get("reason"), str):
        shown["reason"] = reason_text(str(shown["reason"]), words)
    return words(f"error.{code}", **shown)


def reason_text(reason: str, words: Translator) -> str:
    """Return the reason of a failure: our text if it is a key, else the system's or library's own."""
    return words(reason) if reason.startswith("reason.") and words.has(reason) else reason


def failure_text(failure: Failure, words: Translator) -> str:
    """Return the sentence of a job's failure."""
    return error_text(failure.code, failure.values, words)

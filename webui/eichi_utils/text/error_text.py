"""The sentence of an error in the language of the page."""

from diffusers_helper.errors import EngineError

from ..support.failures import Failure
from .translations import Translator


def error_text(error: EngineError | Failure, words: Translator) -> str:
    """Return the sentence of an error or a job's failure; a request's field gets its name on the page."""
    shown = dict(error.values)
    field, reason = shown.get("field"), shown.get("reason")
    if isinstance(field, str) and words.has(f"field.{field}"):
        shown["field"] = words(f"field.{field}")
    if isinstance(reason, str):
        shown["reason"] = reason_text(reason, words)
    return words(f"error.{error.code}", **shown)


def reason_text(reason: str, words: Translator) -> str:
    """Return the reason of a failure: our text if it is a key, else the system's or library's own."""
    return words(reason) if reason.startswith("reason.") and words.has(reason) else reason

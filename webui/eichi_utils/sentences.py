"""What went wrong, as a sentence in the language of the page. Knows codes and words, and no exception."""

from collections.abc import Mapping

from .failures import Failure
from .translations import Translator


def error_text(code: str, values: Mapping[str, object], words: Translator) -> str:
    """The sentence of an error code; the name of a request's field is shown as the page shows it."""
    shown = dict(values)
    field = shown.get("field")
    if isinstance(field, str) and words.has(f"field.{field}"):
        shown["field"] = words(f"field.{field}")
    return words(f"error.{code}", **shown)


def failure_text(failure: Failure, words: Translator) -> str:
    """The sentence of a job's failure."""
    return error_text(failure.code, failure.values, words)

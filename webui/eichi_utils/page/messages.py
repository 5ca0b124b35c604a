"""Messages that stand on the page until they are closed: notes, and errors with details to copy."""

import html
import itertools
from collections.abc import Iterable

from diffusers_helper.errors import EngineError

from ..support.failures import describe_failure
from ..text.error_text import error_text
from ..text.translations import Translator

NOTHING = ""
_numbers = itertools.count(1)
"""The numbers of messages: gradio draws a closed one again only where it differs."""


def note(text: str) -> str:
    """A plain message."""
    return (
        f'<div class="ichi-message ichi-note" role="status" data-number="{next(_numbers)}">'
        f"<p>{html.escape(text)}</p></div>"
    )


def problem(error: Exception, words: Translator, hide: Iterable[str] = ()) -> str:
    """An error's sentence with a button that copies the details for support, without the texts in `hide`."""
    failure = describe_failure(error, hide)
    text = html.escape(error_text(failure, words))
    copied = html.escape(failure.details).replace("\n", "&#10;")
    return (
        f'<div class="ichi-message ichi-error" role="alert" data-number="{next(_numbers)}"><p>{text}</p>'
        f'<div class="ichi-buttons"><button type="button" data-ichi-copy="{copied}">'
        f"{html.escape(words('live.copy_details'))}</button>"
        f'<button type="button" data-ichi-close="">{html.escape(words("live.close"))}</button></div></div>'
    )


def hint(error: EngineError, words: Translator) -> str:
    """An error's sentence in place of the estimate, before anything was started."""
    return f'<p class="ichi-hint" role="status">{html.escape(error_text(error, words))}</p>'


def plain(text: str) -> str:
    """A line of text."""
    return f"<p>{html.escape(text)}</p>"

"""Messages for the page's toast: notes, maybe with an undo, and errors with details to copy."""

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


def note(text: str, undo: tuple[str, str] | None = None) -> str:
    """A plain message.

    Args:
        undo: the words of a button that brings back what was deleted, and what the page's script does for it:
            asks an address below `ichi/`, or says a word with a colon to the page's handlers.
    """
    button = ""
    if undo is not None:
        said, address = map(html.escape, undo)
        button = f'<button type="button" data-ichi-undo="{address}">{said}</button>'
        button = f'<div class="ichi-buttons">{button}</div>'
    return (
        f'<div class="ichi-message ichi-note" data-number="{next(_numbers)}">'
        f"<p>{html.escape(text)}</p>{button}</div>"
    )


def problem(
    error: Exception, words: Translator, hide: Iterable[str] = (), *, offer: str | None = None
) -> str:
    """An error's sentence with a button that copies the details for support, without the texts in `hide`.

    Another one says `offer` to the page's script, which takes a picture as it is.
    """
    failure = describe_failure(error, hide)
    text = html.escape(error_text(failure, words))
    copied = html.escape(failure.details).replace("\n", "&#10;")
    return (
        f'<div class="ichi-message ichi-error" data-number="{next(_numbers)}" data-code="{failure.code}">'
        f"<p>{text}</p>"
        f'<div class="ichi-buttons">{_offer_button(offer, words)}'
        f'<button type="button" data-ichi-copy="{copied}">'
        f"{html.escape(words('live.copy_details'))}</button></div></div>"
    )


def _offer_button(offer: str | None, words: Translator) -> str:
    if offer is None:
        return ""
    said, text = html.escape(offer), html.escape(words("page.take_cut"))
    return f'<button type="button" data-ichi-offer="{said}">{text}</button>'


def hint(error: EngineError, words: Translator) -> str:
    """An error's sentence in place of the estimate, before anything was started."""
    return f'<p class="ichi-hint" role="status">{html.escape(error_text(error, words))}</p>'


def plain(text: str, **data: object) -> str:
    """A line of text, with values for the page's script."""
    values = "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in data.items())
    return f"<p{values}>{html.escape(text)}</p>"

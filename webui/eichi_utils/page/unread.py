"""The place in the prompt at which one that is longer than the models read is cut."""

import contextlib
import re

from diffusers_helper.errors import InputError
from diffusers_helper.public import find_unread

from . import messages
from .widgets import Data, Page, Updates, text_of

SHOWN_CHARACTERS = 16
"""Characters of the last words that are read."""


def show_unread(page: Page, data: Data) -> Updates:
    """Show the last words that the models read, where a prompt goes on behind them."""
    prompt, end = text_of(data, page.inputs.prompt), None
    with contextlib.suppress(InputError):  # of a tokenizer that is broken, which a job reports
        end = find_unread(prompt, page.app.options.engine.find_tokenizer)
    if end is None:
        return {page.inputs.unread: messages.NOTHING}
    note = page.words(data)("page.unread", words=last_words(prompt[:end]))
    return {page.inputs.unread: messages.plain(note)}


def last_words(text: str) -> str:
    """Return the end of a text on one line, from the beginning of a word where that is near."""
    line = " ".join(text.split())
    if len(line) <= SHOWN_CHARACTERS:
        return line
    end = line[-SHOWN_CHARACTERS:]
    whole = re.sub(r"^\S{0,8} ", "", end) if line[-SHOWN_CHARACTERS - 1] != " " else end
    return f"…{whole.strip()}"

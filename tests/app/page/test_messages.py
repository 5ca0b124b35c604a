"""Messages for the page: they hold whole texts, and no markup but their own."""

from html.parser import HTMLParser

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils.page import messages
from webui.eichi_utils.text.translations import LANGUAGES, Translator

WORDS = Translator("en")
NASTY = '<script>alert(1)</script>" onmouseover="x" \'&amp; \n{b}'


class Parsed(HTMLParser):
    """The tags, the attributes and the text of a message, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def caught(error: Exception) -> Exception:
    """The error as it is after it was raised: with a place."""
    with pytest.raises(type(error)) as info:
        raise error
    return info.value


@pytest.mark.parametrize("make", [messages.note, messages.plain])
def test_markup_in_a_text_stays_text(make):
    parsed = Parsed(make(NASTY))
    assert parsed.text == NASTY
    assert set(parsed.tags) <= {"div", "p"}
    assert parsed.attributes.keys() <= {"class", "role", "data-number"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_is_a_sentence_in_the_language_of_the_page(language):
    words = Translator(language)
    parsed = Parsed(messages.problem(InputError("preset_missing", name=NASTY), words))
    assert parsed.text == words("error.preset_missing", name=NASTY) + words("live.copy_details")
    assert parsed.tags == ["div", "p", "div", "button"]
    parsed = Parsed(messages.hint(MachineError("port_taken", port=NASTY), words))
    assert (parsed.tags, parsed.text) == (["p"], words("error.port_taken", port=NASTY))


def test_the_details_hold_the_traceback_in_one_line():
    message = messages.problem(caught(ValueError(NASTY)), WORDS)
    copied = Parsed(message).attributes["data-ichi-copy"]
    assert copied is not None
    assert "Traceback (most recent call last):\n" in copied
    assert f"ValueError: {NASTY}" in copied
    assert "\n" not in message, "line ends would be lost in an attribute"


def test_an_undo_is_a_button_with_an_address():
    parsed = Parsed(messages.note(NASTY, (NASTY, "jobs/a,b/restore")))
    assert parsed.text == 2 * NASTY
    assert parsed.tags == ["div", "p", "div", "button"]
    assert parsed.attributes["data-ichi-undo"] == "jobs/a,b/restore"


def test_errors_stay_notes_do_not_and_each_is_unique():
    """Gradio draws a message that was closed again only if it has changed."""
    assert "ichi-error" in messages.problem(InputError("no_result"), WORDS)
    assert "ichi-error" not in messages.note("a")
    assert messages.note("a") != messages.note("a")

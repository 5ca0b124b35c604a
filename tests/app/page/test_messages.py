"""Messages for the page: nothing that they hold can become markup, and nothing is lost on the way."""

import html
import re
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
def test_a_text_stays_a_text(make):
    parsed = Parsed(make(NASTY))
    assert parsed.text == NASTY
    assert set(parsed.tags) <= {"div", "p"}
    assert parsed.attributes.keys() <= {"class", "role", "data-number"}


def test_a_name_inside_an_error_stays_a_text():
    parsed = Parsed(messages.problem(InputError("preset_missing", name=NASTY), WORDS))
    assert parsed.text.startswith(WORDS("error.preset_missing", name=NASTY))
    assert parsed.tags == ["div", "p", "div", "button", "button"]


def test_an_error_comes_with_its_details_for_those_who_help():
    error = caught(ValueError(NASTY))
    copied = Parsed(messages.problem(error, WORDS)).attributes["data-ichi-copy"]
    assert copied is not None
    assert "Traceback (most recent call last):\n" in copied
    assert f"ValueError: {NASTY}" in copied
    assert "\n" not in messages.problem(error, WORDS), "line ends would be lost in an attribute"


def test_pictures_and_the_users_home_are_not_in_the_details(monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    error = caught(ValueError(f"{tmp_path}/x data:image/png;base64,AAAABBBBCCCC=="))
    copied = Parsed(messages.problem(error, WORDS)).attributes["data-ichi-copy"]
    assert copied is not None
    assert "AAAABBBB" not in copied
    assert str(tmp_path) not in copied


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_error_is_told_in_the_language_of_the_page(language):
    words = Translator(language)
    error = InputError("out_of_range", field="steps", value="0", low=1, high=100)
    parsed = Parsed(messages.problem(error, words))
    assert words("field.steps") in parsed.text
    assert words("live.copy_details") in parsed.text
    assert words("live.close") in parsed.text


def test_an_error_that_nobody_knows_is_one_sentence_too():
    text = Parsed(messages.problem(caught(RuntimeError("a\nb")), WORDS)).text
    assert text.startswith(
        "Something went wrong that this app does not know: RuntimeError: a b (at test_messages.py:"
    )


def test_no_memory_is_told_as_what_it_is():
    assert Parsed(messages.problem(MemoryError(), WORDS)).text.startswith("There is not enough memory;")


def test_a_hint_is_a_sentence_without_buttons():
    parsed = Parsed(messages.hint(MachineError("port_taken", port=NASTY), WORDS))
    assert (parsed.tags, parsed.text) == (["p"], WORDS("error.port_taken", port=NASTY))


def test_errors_are_alarms_and_notes_are_not():
    assert 'role="alert"' in messages.problem(InputError("no_result"), WORDS)
    for text in (messages.note("a"), messages.hint(InputError("no_result"), WORDS)):
        assert re.search('role="(status)"', text)


def test_markup_in_a_translation_would_be_shown_and_not_obeyed():
    assert html.escape("<b>") in messages.plain("<b>")


def test_the_same_message_again_is_another_one():
    """Gradio draws a message that was closed again only if it has changed."""
    assert messages.note("a") != messages.note("a")

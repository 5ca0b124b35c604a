"""Widgets and their words, with stand-ins for widgets."""

import pytest

from webui.eichi_utils.page.labels import Labels
from webui.eichi_utils.text.translations import LANGUAGES, Translator


class Widget:
    """Takes whatever attributes it is given; each is itself only, as gradio's are."""


UPDATE = {"__type__": "update"}
CHOICES = [("page.mode_normal", "normal"), ("page.mode_loop", "loop")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_widgets_have_their_words_in_each_language(language):
    words, english = Translator(language), Translator("en")
    labels = Labels(english)
    button, radio = Widget(), Widget()
    assert labels.add(button, value="page.start", info="page.steps_info") is button
    labels.add(radio, label="page.mode", choices=CHOICES)
    assert (button.value, button.info) == (english("page.start"), english("page.steps_info"))
    assert radio.info == english("page.mode_info"), "a label's info comes with it"
    assert radio.choices == [("Normal", "normal"), ("Loop", "loop")]
    assert labels.widgets == [button, radio]
    choices = [(words(key), value) for key, value in CHOICES]
    assert labels.in_language(words) == {
        button: UPDATE | {"value": words("page.start"), "info": words("page.steps_info")},
        radio: UPDATE | {"info": words("page.mode_info"), "label": words("page.mode"), "choices": choices},
    }


def test_a_key_without_words_is_an_error():
    with pytest.raises(KeyError):
        Labels(Translator("en")).add(Widget(), label="page.no_such_words")

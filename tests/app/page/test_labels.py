"""Widgets and their words, with stand-ins for widgets."""

from typing import Any

import pytest

from webui.eichi_utils.page.labels import Labels
from webui.eichi_utils.text.translations import LANGUAGES, Translator


class Widget:
    """Takes whatever attributes it is given; each is itself only, as gradio's are."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


UPDATE = {"__type__": "update"}
CHOICES = [("page.section_one", 1), ("page.section_half", 0.5)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_widgets_have_their_words_in_each_language(language):
    words, english = Translator(language), Translator("en")
    labels = Labels(english)
    box = labels.make(Widget, "start-image", keys={"info": "page.steps_info"}, height=7)
    radio = labels.make(Widget, "section-seconds", keys={"choices": CHOICES}, elem_id="id")
    texts = {"label": english("page.start_image"), "info": english("page.steps_info")}
    assert vars(box) == texts | {"elem_id": "start-image", "height": 7}
    assert radio.info == english("page.section_seconds_info"), "a label's info comes with it"
    assert (radio.choices, radio.elem_id) == ([("1 s", 1), ("0.5 s", 0.5)], "id")
    assert (labels.fields, radio.value) == ({"section_seconds": radio}, 1), (
        "a field of the form has its default"
    )
    assert labels.widgets == [box, radio]
    choices = [(words(key), value) for key, value in CHOICES]
    assert labels.in_language(words) == {
        box: UPDATE | {"label": words("page.start_image"), "info": words("page.steps_info")},
        radio: UPDATE
        | {
            "info": words("page.section_seconds_info"),
            "label": words("page.section_seconds"),
            "choices": choices,
        },
    }


def test_a_key_without_words_is_an_error():
    with pytest.raises(KeyError):
        Labels(Translator("en")).make(Widget, "no-such-words")

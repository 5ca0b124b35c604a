"""Widgets and the words that they show, with widgets that only pretend."""

import pytest

from webui.eichi_utils.page.labels import Labels
from webui.eichi_utils.text.translations import LANGUAGES, Translator


class Widget:
    """Takes whatever attributes it is given; each is itself only, as gradio's are."""


CHOICES = [("page.mode_normal", "normal"), ("page.mode_loop", "loop")]


def test_a_new_widget_gets_its_words_and_is_given_back():
    widget = Widget()
    words = Translator("en")
    assert Labels(words).add(widget, label="page.seed", info="page.steps_info") is widget
    assert (widget.label, widget.info) == (words("page.seed"), words("page.steps_info"))


def test_choices_get_words_and_keep_their_values():
    widget = Widget()
    Labels(Translator("en")).add(widget, choices=CHOICES)
    assert widget.choices == [("Normal", "normal"), ("Loop", "loop")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_widgets_can_change_their_language_at_once(language):
    labels = Labels(Translator("en"))
    widgets = [labels.add(Widget(), value="page.start")]
    widgets.append(labels.add(Widget(), label="page.mode", choices=CHOICES))
    words = Translator(language)
    assert labels.widgets == widgets
    assert labels.in_language(words) == {
        widgets[0]: {"value": words("page.start")},
        widgets[1]: {
            "label": words("page.mode"),
            "choices": [(words("page.mode_normal"), "normal"), (words("page.mode_loop"), "loop")],
        },
    }


def test_no_language_changes_a_value_that_a_choice_stands_for():
    labels = Labels(Translator("en"))
    radio = labels.add(Widget(), choices=CHOICES)
    values = [
        [value for _, value in labels.in_language(Translator(code))[radio]["choices"]] for code in LANGUAGES
    ]
    assert values == [["normal", "loop"]] * len(LANGUAGES)


def test_a_key_without_words_is_no_text():
    with pytest.raises(KeyError):
        Labels(Translator("en")).add(Widget(), label="page.no_such_words")

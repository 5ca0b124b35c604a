"""The words that each widget shows, so that the whole page can change its language at once."""

from typing import Any, TypeVar

import gradio as gr

from ..text.translations import Translator

_Widget = TypeVar("_Widget")


class Labels:
    """Gives widgets their words and remembers which.

    A widget's text attributes (`label`, `info`, `placeholder`, `value`) are named by keys of `locales/`;
    `choices` is a list of (key, value) pairs. Where there is a text `<label>_info`, it is the `info`.
    """

    def __init__(self, words: Translator) -> None:
        self._words = words
        self._known: dict[Any, dict[str, Any]] = {}

    def add(self, widget: _Widget, **keys: Any) -> _Widget:
        """Put the words into a new widget; returns it."""
        info = f"{keys.get('label')}_info"
        self._known[widget] = ({"info": info} if self._words.has(info) else {}) | keys
        for attribute, text in _texts(self._known[widget], self._words).items():
            setattr(widget, attribute, text)
        return widget

    @property
    def widgets(self) -> list[Any]:
        return [*self._known]

    def in_language(self, words: Translator) -> dict[Any, dict[str, Any]]:
        """Return the updates of all widgets to another language."""
        return {widget: gr.update(**_texts(keys, words)) for widget, keys in self._known.items()}


def _texts(keys: dict[str, Any], words: Translator) -> dict[str, Any]:
    return {
        name: words(key) if isinstance(key, str) else [(words(label), value) for label, value in key]
        for name, key in keys.items()
    }

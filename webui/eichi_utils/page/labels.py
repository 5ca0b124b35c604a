"""The words that each widget shows, so that the whole page can change its language at once."""

from typing import Any, TypeVar

from ..text.translations import Translator

_Widget = TypeVar("_Widget")


class Labels:
    """Gives widgets their words and remembers which.

    A widget's text attributes (`label`, `info`, `placeholder`, `value`) are named by keys of `locales/`;
    `choices` is a list of (key, value) pairs.
    """

    def __init__(self, words: Translator) -> None:
        self._words = words
        self._known: list[tuple[Any, dict[str, Any]]] = []

    def add(self, widget: _Widget, **keys: Any) -> _Widget:
        """Put the words into a new widget; returns it."""
        self._known.append((widget, keys))
        for attribute, text in _texts(keys, self._words).items():
            setattr(widget, attribute, text)
        return widget

    @property
    def widgets(self) -> list[Any]:
        return [widget for widget, _ in self._known]

    def in_language(self, words: Translator) -> dict[Any, dict[str, Any]]:
        """Return each widget's texts in another language, by attribute."""
        return {widget: _texts(keys, words) for widget, keys in self._known}


def _texts(keys: dict[str, Any], words: Translator) -> dict[str, Any]:
    return {
        name: words(key) if isinstance(key, str) else [(words(label), value) for label, value in key]
        for name, key in keys.items()
    }

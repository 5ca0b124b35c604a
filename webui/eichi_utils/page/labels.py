"""The words that each widget shows, so that the whole page can change its language at once."""

from typing import Any

import gradio as gr

from ..form import FIELDS
from ..text.translations import Translator

RAW: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""The options of handlers that take what the browser sends as it is: requests check every value, in the
page's language."""


class Labels:
    """Makes widgets with their words, and remembers which.

    A widget's text attributes (`label`, `info`, `placeholder`, `value`) are named by keys of `locales/`;
    `choices` is a list of (key, value) pairs. Where there is a text `<label>_info`, it is the `info`.
    `fields` are the widgets of the form's plain values, by their names there; each has its default.
    """

    def __init__(self, words: Translator) -> None:
        self.fields: dict[str, Any] = {}
        self.words = words
        self._known: dict[Any, dict[str, Any]] = {}

    def make(self, kind: type, name: str, /, *, keys: dict[str, Any] | None = None, **properties: Any) -> Any:
        """Lay out a widget whose id is `name` and whose label, or value, is the text `page.<name>`.

        Args:
            keys: those of its other texts, or of these where they have other names.
            properties: of gradio's.
        """
        field = name.replace("-", "_")
        texts = {"value" if issubclass(kind, gr.Button | gr.HTML) else "label": f"page.{field}"} | (
            keys or {}
        )
        if self.words.has(info := f"{texts.get('label')}_info"):
            texts = {"info": info} | texts
        value = {"value": FIELDS[field].default} if field in FIELDS else {}
        widget = kind(**{"elem_id": name} | value | properties)
        if field in FIELDS:
            self.fields[field] = widget
        self._known[widget] = texts
        for attribute, text in _texts(texts, self.words).items():
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

"""A field with a few choices in words, and a number for everything between."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from diffusers_helper.request import field_limits

from ...form import FIELDS
from ..labels import RAW, Labels

OTHER = "other"
"""The code of the choice that shows the number."""


class Choice:
    """The widgets of one field, laid out where it is made: `radio` and, for its last choice, `number`.

    Args:
        values: the field's value by the code of its choice, whose word is `page.NAME_CODE`.
        choices: their words and codes, where these are others.
        properties: of the number.
    """

    def __init__(
        self,
        labels: Labels,
        name: str,
        values: Mapping[str, Any],
        *,
        choices: list[tuple[str, str]] | None = None,
        **properties: Any,
    ) -> None:
        self.name, self._values = name.replace("-", "_"), dict(values)
        low, high = field_limits(self.name)
        limits = {"minimum": low, "maximum": high} | properties
        default = FIELDS[self.name].default
        named = [*((f"page.{self.name}_{code}", code) for code in values), ("page.other", OTHER)]
        keys = {"label": f"page.{self.name}"} | ({} if choices else {"choices": named})
        shown = {"value": self._code(default), "choices": choices}
        with gr.Row(elem_classes=["ichi-choice"]):
            self.radio = labels.make(gr.Radio, f"{name}-choice", keys=keys, **shown)
            keys, is_shown = {"label": f"field.{self.name}"}, self._code(default) == OTHER
            self.number = labels.make(gr.Number, name, keys=keys, visible=is_shown, **limits)
        self.radio.input(self._show_number, self.radio, self.number, **RAW)

    def value(self, data: Mapping[Any, Any]) -> Any:
        """The field's value in what a browser sends."""
        code = data[self.radio]
        if code == OTHER:
            return data[self.number]
        return self._values.get(code, code) if isinstance(code, str) else code  # a program sends anything

    def filled(self, value: Any) -> dict[Any, Any]:
        """The updates that show a value."""
        code = self._code(value)
        return {
            self.radio: gr.update(value=code),
            self.number: gr.update(value=value, visible=code == OTHER),
        }

    def _code(self, value: Any) -> str:
        return next((code for code, known in self._values.items() if known == value), OTHER)

    def _show_number(self, code: object) -> Any:
        if code == OTHER:
            return gr.update(visible=True)
        return gr.update(value=self._values.get(str(code)), visible=False)

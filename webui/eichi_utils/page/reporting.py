"""One page as its handlers see it, and the message that each of their failures becomes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError

from ..app import AppState
from ..form import Values
from ..text.translations import Translator
from ..uploads.files import delete_refused
from . import messages
from .parts.preset_box import PresetBox
from .parts.result import Result
from .widgets import Data, PageForm, Updates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """The widgets of a page and the app behind them: what a handler needs besides the raw values."""

    app: AppState
    form: PageForm
    presets: PresetBox
    result: Result

    @property
    def message(self) -> Any:
        return self.form.inputs.message

    def words(self, data: Data) -> Translator:
        return self.app.translator(data[self.form.language])

    def note(self, data: Data, key: str, **values: object) -> Updates:
        """The update that shows a message, in the page's language."""
        return {self.message: messages.note(self.words(data)(key, **values))}

    def output_folder(self, data: Data) -> Path:
        """The folder for videos; raises InputError where the field names none."""
        return self.app.output_folder(text_of(data, self.form.options.output_folder))

    def requested(self, data: Data) -> Values:
        """The fields' values, as far as the models that are there can do what they ask for."""
        resolution = self.app.forced_resolution
        return self.form.values(data) | ({} if resolution is None else {"resolution": resolution})

    def private_texts(self, data: Data) -> list[str]:
        """The texts that the user wrote, which no report may hold."""
        form = self.form
        rows, hidden = data.get(form.keyframes.rows, {}), data.get(form.hidden_settings, {})
        written = (data.get(form.inputs.prompt), hidden.get("negative_prompt"))
        return [text for text in (*written, *(r.prompt for r in rows.values())) if isinstance(text, str)]

    def handler(self, act: "Handler") -> Callable[[Data], Updates]:
        """The handler as gradio calls it: a failure becomes a message, in the page's language."""

        def report(data: Data) -> Updates:
            try:
                return act(self, data) or gr.skip()
            except Exception as caught:
                error, private = caught, self.private_texts(data)
                if isinstance(error, EngineError):
                    error = delete_refused(error, self.app.uploads)
                else:
                    logger.error("a handler of the page failed", exc_info=True, extra={"private": private})
                return {self.message: messages.problem(error, self.words(data), private)}

        report.__name__ = act.__name__
        return report


Handler = Callable[[Page, Data], Updates]
"""A function that reads the widgets' raw values, acts, and gives the widgets that change."""


def text_of(data: Data, widget: Any) -> str:
    """The text in a field; an empty one where somebody sent something else."""
    return data[widget] if isinstance(data[widget], str) else ""

"""One page as its handlers see it: its fields read and filled, and each failure as a message."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError

from ..app import AppState
from ..form import FIELDS, LOOP, Pictures, Values
from ..text.translations import Translator
from ..uploads.cleanup import touch
from ..uploads.files import delete_refused, uploaded_path, uploaded_paths
from . import messages
from .parts.inputs import RAW, Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import SLIDER_TOPS, Options
from .parts.preset_box import PresetBox
from .parts.result import Result

logger = logging.getLogger(__name__)

Data = Mapping[Any, Any]
"""The raw value of each widget, as gradio hands it to a handler."""
Updates = dict[Any, Any]
"""The new values of widgets, or their new properties (`gr.update`), that a handler returns to gradio."""


@dataclass(frozen=True)
class Page:
    """The widgets of a page and the app behind them: what a handler needs besides the raw values.

    `fields` are the widgets of the form's plain values, by name; `hidden_settings` holds the settings of a
    request that no field shows; `language` is the page's.
    """

    app: AppState
    fields: dict[str, Any]
    inputs: Inputs
    options: Options
    keyframes: KeyframeRows
    presets: PresetBox
    result: Result
    hidden_settings: Any
    language: Any

    @property
    def message(self) -> Any:
        return self.inputs.message

    @property
    def pictures_and_states(self) -> list[Any]:
        """All else that makes a request."""
        inputs, rows = self.inputs, self.keyframes
        return [inputs.start, inputs.start_images, inputs.end, rows.rows, rows.plan, self.hidden_settings]

    @property
    def widgets(self) -> set[Any]:
        """Everything to be handed to a handler that reads the form."""
        return {*self.fields.values(), *self.pictures_and_states, self.language, self.options.output_folder}

    @property
    def restored_widgets(self) -> list[Any]:
        """Everything that changes when a request comes back."""
        notes = [self.message, self.options.hidden_note, self.options.clear_hidden]
        return [*self.fields.values(), *self.pictures_and_states, *notes]

    def words(self, data: Data) -> Translator:
        return self.app.translator(data[self.language])

    def values(self, data: Data) -> Values:
        """The fields' values; an emptied text, which comes as None, is one."""
        values = {name: data[widget] for name, widget in self.fields.items()}
        return values | {name: values[name] or "" for name in ("prompt", "seed")}

    def requested(self, data: Data) -> Values:
        """The fields' values, as far as the models that are there can do what they ask for."""
        resolution = self.app.forced_resolution
        return self.values(data) | ({} if resolution is None else {"resolution": resolution})

    def pictures(self, data: Data) -> Pictures:
        uploads = self.app.uploads
        several = uploaded_paths(data[self.inputs.start_images], uploads)
        single = uploaded_path(data[self.inputs.start], uploads)
        start = tuple(several) if several else (single,) if single is not None else ()
        end = uploaded_path(data[self.inputs.end], uploads)
        rows = data[self.keyframes.rows]
        touch([*start, end, *(row.image for row in rows.values())])
        return Pictures(start, end, rows)

    def output_folder(self, data: Data) -> Path:
        """The folder for videos; raises InputError where the field names none."""
        return self.app.output_folder(text_of(data, self.options.output_folder))

    def private_texts(self, data: Data) -> list[str]:
        """The texts that the user wrote, which no report may hold."""
        rows, hidden = data.get(self.keyframes.rows, {}), data.get(self.hidden_settings, {})
        written = (data.get(self.inputs.prompt), hidden.get("negative_prompt"))
        return [text for text in (*written, *(r.prompt for r in rows.values())) if isinstance(text, str)]

    def note(self, data: Data, key: str, **values: object) -> Updates:
        """The update that shows a message, in the page's language."""
        return {self.message: messages.note(self.words(data)(key, **values))}

    def filled(self, values: Values) -> Updates:
        """Updates that put plain values into their widgets and show what belongs to them."""
        updates = {self.fields[name]: gr.update(value=values[name]) for name in FIELDS}
        for name, top in SLIDER_TOPS.items():  # a slider reaches as far as what it has to show
            updates[self.fields[name]]["maximum"] = max(top, values[name])
        for switch, update in self.switched(values).items():
            updates[switch] |= update
        return updates

    def switched(self, values: Values) -> Updates:
        """Updates that show, hide or lock fields by the switches beside them."""
        fields, copies = self.fields, values["mode"] == LOOP and bool(values["use_keyframes"])
        return {
            fields["all_padding"]: gr.update(visible=bool(values["use_all_padding"])),
            fields["teacache_threshold"]: gr.update(visible=bool(values["teacache"])),
            fields["seed"]: gr.update(interactive=not values["random_seed"]),
            fields["copy_keyframes"]: gr.update(visible=copies),
        }

    def with_starts(self, paths: Sequence[str]) -> Updates:
        """Updates that put one start image, several, or none in place of whatever is there."""
        single = paths[0] if len(paths) == 1 else None
        several = list(paths) if len(paths) > 1 else None
        return {
            self.inputs.start: gr.update(value=single, visible=several is None),
            self.inputs.start_images: gr.update(value=several, visible=several is not None),
        }

    def on(
        self, event: Callable[..., Any], act: "Handler", outputs: Sequence[Any], *inputs: Any, **options: Any
    ) -> None:
        """Have a handler called at an event, with the raw values of the form and of further `inputs`."""
        event(self.handler(act), {*self.widgets, *inputs}, outputs, **RAW, **options)

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

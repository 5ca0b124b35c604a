"""The page's fields as one thing: reading them all, filling them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..form import FIELDS, LOOP, Pictures, Values, normalized
from ..uploads.cleanup import touch
from ..uploads.files import uploaded_path, uploaded_paths
from .parts.inputs import Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import SLIDER_TOPS, Options

Data = Mapping[Any, Any]
"""The raw value of each widget, as gradio hands it to a handler."""
Updates = dict[Any, Any]
"""The new values of widgets, or their new properties (`gr.update`), that a handler returns to gradio."""


@dataclass(frozen=True)
class PageForm:
    """All widgets that make a request. `hidden_settings` holds what no field shows; `language` is the page's.
    `uploads` is the folder where all that a page may name as a picture lies."""

    inputs: Inputs
    options: Options
    keyframes: KeyframeRows
    hidden_settings: Any
    language: Any
    uploads: Path

    @property
    def fields(self) -> dict[str, Any]:
        """The widgets of the form's plain values, by name."""
        return {
            **self.options.fields,
            "prompt": self.inputs.prompt,
            "seconds": self.inputs.seconds,
            "use_keyframes": self.keyframes.use,
            "copy_keyframes": self.keyframes.copy,
        }

    @property
    def widgets(self) -> set[Any]:
        """Everything to be handed to a handler that reads the form."""
        states = {self.keyframes.rows, self.keyframes.plan, self.hidden_settings}
        pictures = {self.inputs.start, self.inputs.start_images, self.inputs.end}
        return {*self.fields.values(), *pictures, *states, self.language, self.options.output_folder}

    @property
    def restored_widgets(self) -> list[Any]:
        """Everything that changes when a request comes back."""
        inputs, options, keyframes = self.inputs, self.options, self.keyframes
        states = [keyframes.rows, keyframes.plan, self.hidden_settings]
        notes = [inputs.message, options.hidden_note, options.clear_hidden]
        return [*self.fields.values(), inputs.start, inputs.start_images, inputs.end, *states, *notes]

    def values(self, data: Data) -> Values:
        return normalized({name: data[widget] for name, widget in self.fields.items()})

    def pictures(self, data: Data) -> Pictures:
        several = uploaded_paths(data[self.inputs.start_images], self.uploads)
        single = uploaded_path(data[self.inputs.start], self.uploads)
        start = tuple(several) if several else (single,) if single is not None else ()
        end = uploaded_path(data[self.inputs.end], self.uploads)
        rows = data[self.keyframes.rows]
        touch([*start, end, *(row.image for row in rows.values())])
        return Pictures(start, end, rows)

    def filled(self, values: Values) -> Updates:
        """Updates that put plain values into their widgets and show what belongs to them."""
        updates = {self.fields[name]: gr.update(value=values[name]) for name in FIELDS if name in values}
        for name, top in SLIDER_TOPS.items():  # a slider reaches as far as what it has to show
            if name in values:
                updates[self.fields[name]]["maximum"] = max(top, values[name])
        for switch, update in self.switched(values).items():
            updates[switch] = updates.get(switch, {}) | update
        return updates

    def switched(self, values: Values) -> Updates:
        """Updates that show, hide or lock fields by the switches beside them."""
        fields, copies = self.options.fields, values["mode"] == LOOP and bool(values["use_keyframes"])
        return {
            fields["all_padding"]: gr.update(visible=bool(values["use_all_padding"])),
            fields["teacache_threshold"]: gr.update(visible=bool(values["teacache"])),
            fields["seed"]: gr.update(interactive=not values["random_seed"]),
            self.keyframes.copy: gr.update(visible=copies),
        }

    def with_starts(self, paths: Sequence[str]) -> Updates:
        """Updates that put one start image, several, or none in place of whatever is there."""
        single = paths[0] if len(paths) == 1 else None
        several = list(paths) if len(paths) > 1 else None
        return {
            self.inputs.start: gr.update(value=single, visible=several is None),
            self.inputs.start_images: gr.update(value=several, visible=several is not None),
        }

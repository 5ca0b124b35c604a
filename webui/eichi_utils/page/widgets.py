"""The page's fields as one thing: reading them all, filling them all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..form import FIELDS, LOOP, Pictures, Restored, Row, Values, normalized
from ..uploads.cleanup import touch
from ..uploads.files import uploaded_path, uploaded_paths
from .parts.inputs import Inputs
from .parts.keyframe_rows import KeyframeRows
from .parts.options import Options

SLIDER_TOPS = {"all_padding": 3, "teacache_threshold": 1, "resolution": 1024}
"""Where sliders end that requests go beyond."""
Data = Mapping[Any, Any]
"""What gradio hands to a handler: the raw value of each widget."""


@dataclass(frozen=True)
class PageForm:
    """All widgets that make a request. `extras` holds what no field shows; `language` is the page's.
    `uploads` is the folder where all that a page may name as a picture lies."""

    inputs: Inputs
    options: Options
    keyframes: KeyframeRows
    extras: Any
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
        pictures = {self.inputs.start, self.inputs.several, self.inputs.end}
        states = {self.keyframes.rows, self.keyframes.plan, self.extras}
        return {*self.fields.values(), *pictures, *states, self.language, self.options.output_folder}

    def values(self, data: Data) -> Values:
        return normalized({name: data[widget] for name, widget in self.fields.items()})

    def pictures(self, data: Data) -> Pictures:
        several = uploaded_paths(data[self.inputs.several], self.uploads)
        single = uploaded_path(data[self.inputs.start], self.uploads)
        start = tuple(several) if several else (single,) if single is not None else ()
        end = uploaded_path(data[self.inputs.end], self.uploads)
        rows = data[self.keyframes.rows]
        touch([*start, end, *(row.image for row in rows.values())])
        return Pictures(start, end, rows)

    def filled(self, values: Values) -> dict[Any, dict[str, Any]]:
        """Changes that put plain values into their widgets and show what belongs to them."""
        changes: dict[Any, dict[str, Any]] = {
            self.fields[name]: {"value": values[name]} for name in FIELDS if name in values
        }
        for name, top in SLIDER_TOPS.items():  # a slider reaches as far as what it has to show
            if name in values:
                changes[self.fields[name]]["maximum"] = max(top, values[name])
        for switch, widgets in self.switched(values).items():
            changes[switch] = changes.get(switch, {}) | widgets
        return changes

    def switched(self, values: Values) -> dict[Any, dict[str, Any]]:
        """Which fields show and can be changed, by the switches beside them."""
        fields = self.options.fields
        return {
            fields["all_padding"]: {"visible": bool(values["use_all_padding"])},
            fields["teacache_threshold"]: {"visible": bool(values["teacache"])},
            fields["seed"]: {"interactive": not values["random_seed"]},
            self.keyframes.copy: {"visible": values["mode"] == LOOP and bool(values["use_keyframes"])},
        }

    def restored(self, request: Restored) -> dict[Any, dict[str, Any]]:
        """Changes that bring a whole request back, pictures included."""
        start = request.pictures.start[0] if request.pictures.start else None
        return (
            self.filled(request.values)
            | self.with_start(start)
            | {
                self.inputs.end: {"value": request.pictures.end},
            }
        )

    def with_start(self, path: str | None) -> dict[Any, dict[str, Any]]:
        """Changes that put one start image in place of whatever is there."""
        return {
            self.inputs.start: {"value": path, "visible": True},
            self.inputs.several: {"value": None, "visible": False},
        }

    def with_several(self, paths: list[str]) -> dict[Any, dict[str, Any]]:
        """Changes that put several start images in place of one."""
        return {
            self.inputs.start: {"value": None, "visible": False},
            self.inputs.several: {"value": paths, "visible": True},
        }


def as_updates(changes: Mapping[Any, Mapping[str, Any]]) -> dict[Any, Any]:
    """Changes of widgets' properties as gradio takes them."""
    return {widget: gr.update(**properties) for widget, properties in changes.items()}


def rows_of(restored: Restored) -> dict[int, Row]:
    return dict(restored.pictures.rows)

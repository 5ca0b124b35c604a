"""The closed panel: everything that a first video does not need."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffusers_helper.request import field_limits

from ...form import FIELDS, LOOP, NORMAL
from ..labels import Labels

MODES = [("page.mode_normal", NORMAL), ("page.mode_loop", LOOP)]
SECTION_SIZES = [("page.section_one", 1), ("page.section_half", 0.5)]
SLIDER_TOPS = {"all_padding": 3, "teacache_threshold": 1, "resolution": 1024}
"""The ends of sliders that requests go beyond."""


@dataclass(frozen=True)
class Options:
    """The widgets of this part: `fields` by their names in the form, and those with a use of their own."""

    fields: dict[str, Any]
    sound: Any
    output_folder: Any
    open_folder: Any
    hidden_note: Any
    clear_hidden: Any


def build_options(labels: Labels, *, output_given: str | None) -> Options:
    """Lay this part out. `output_given` is the output folder of the command line, which can't be changed."""
    fields = _Fields(labels)
    _build_fields(fields)
    with gr.Row(equal_height=True):
        output_folder = labels.add(
            gr.Textbox(output_given, interactive=output_given is None, elem_id="output-folder", scale=3),
            label="page.output_folder",
            info="page.output_folder_given" if output_given is not None else "page.output_folder_info",
        )
        open_folder = labels.add(
            gr.Button(elem_id="open-folder", min_width=100, scale=1), value="page.open_folder"
        )
    sound = labels.add(gr.Checkbox(True, elem_id="sound"), label="page.sound")
    with gr.Row(equal_height=True):
        hidden_note = gr.HTML(visible=False, elem_id="extras")
        clear_hidden = labels.add(
            gr.Button(visible=False, size="sm", elem_id="forget-extras", scale=0), value="page.forget_extras"
        )
    return Options(fields.widgets, sound, output_folder, open_folder, hidden_note, clear_hidden)


def _build_fields(fields: "_Fields") -> None:
    with gr.Row():
        fields.add("mode", gr.Radio, choices=MODES)
        fields.add("section_seconds", gr.Radio, choices=SECTION_SIZES)
    with gr.Row():
        fields.add_slider("resolution", step=32)
        fields.add_slider("end_frame_strength", step=0.01)
    with gr.Row():
        fields.add("use_all_padding", gr.Checkbox)
        fields.add_slider("all_padding", step=0.1, has_info=False, visible=False)
    with gr.Row():
        fields.add("teacache", gr.Checkbox)
        fields.add_slider("teacache_threshold", step=0.01)
    with gr.Row():
        fields.add_slider("steps", step=1)
        fields.add_slider("distilled_guidance_scale", step=0.1, elem_id="guidance")
    with gr.Row():
        fields.add("random_seed", gr.Checkbox)
        fields.add("seed", gr.Textbox, has_info=False, max_lines=1, interactive=False)
    with gr.Row():
        fields.add_slider("crf", step=1)
        with gr.Column():
            fields.add("keep_section_videos", gr.Checkbox, has_info=False)
            fields.add("save_section_stills", gr.Checkbox, has_info=False)


class _Fields:
    """Lays out fields of the form by their names, which their ids and their words have, too."""

    def __init__(self, labels: Labels) -> None:
        self.widgets: dict[str, Any] = {}
        self._labels = labels

    def add(
        self,
        name: str,
        kind: type,
        *,
        has_info: bool = True,
        choices: list[tuple[str, Any]] | None = None,
        **properties: Any,
    ) -> None:
        """Lay out a widget; `choices` are pairs of a key of `locales/` and a value."""
        keys: dict[str, Any] = {"label": f"page.{name}"}
        keys |= {"info": f"page.{name}_info"} if has_info else {}
        keys |= {"choices": choices} if choices else {}
        properties = {"elem_id": name.replace("_", "-"), "value": FIELDS[name].default} | properties
        self.widgets[name] = self._labels.add(kind(**properties), **keys)

    def add_slider(self, name: str, **properties: Any) -> None:
        low, high = field_limits(name)
        top = SLIDER_TOPS.get(name, high)
        self.add(name, gr.Slider, minimum=low, maximum=top, buttons=[], **properties)

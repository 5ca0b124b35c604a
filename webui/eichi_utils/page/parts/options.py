"""The closed panel: everything that a first video does not need."""

from typing import Any

import gradio as gr

from diffusers_helper.request import field_limits

from ...form import FIELDS, LOOP, NORMAL
from ..labels import Labels

MODES = [("page.mode_normal", NORMAL), ("page.mode_loop", LOOP)]
SECTION_SIZES = [("page.section_one", 1), ("page.section_half", 0.5)]
SLIDER_TOPS = {"all_padding": 3, "teacache_threshold": 1, "resolution": 1024}
"""The ends of sliders that requests go beyond."""


class Options:
    """The widgets of this part, laid out where it is made: `fields` by their names in the form, which their
    ids and words have, too, and those with a use of their own.

    `output_given` is the output folder of the command line, which can't be changed.
    """

    def __init__(self, labels: Labels, *, output_given: str | None) -> None:
        self.fields: dict[str, Any] = {}
        self._labels = labels
        self._add_fields()
        with gr.Row(equal_height=True):
            info = "page.output_folder_given" if output_given is not None else "page.output_folder_info"
            is_free = output_given is None
            folder = gr.Textbox(output_given, interactive=is_free, elem_id="output-folder", scale=3)
            self.output_folder = labels.add(folder, label="page.output_folder", info=info)
            open_folder = gr.Button(elem_id="open-folder", min_width=100, scale=1)
            self.open_folder = labels.add(open_folder, value="page.open_folder")
        self.sound = labels.add(gr.Checkbox(True, elem_id="sound"), label="page.sound")
        with gr.Row(equal_height=True):
            self.hidden_note = gr.HTML(visible=False, elem_id="extras")
            clear_hidden = gr.Button(visible=False, size="sm", elem_id="forget-extras", scale=0)
            self.clear_hidden = labels.add(clear_hidden, value="page.forget_extras")

    def _add_fields(self) -> None:
        with gr.Row():
            self._add("mode", gr.Radio, choices=MODES)
            self._add("section_seconds", gr.Radio, choices=SECTION_SIZES)
        with gr.Row():
            self._add_slider("resolution", step=32)
            self._add_slider("end_frame_strength", step=0.01)
        with gr.Row():
            self._add("use_all_padding", gr.Checkbox)
            self._add_slider("all_padding", step=0.1, visible=False)
        with gr.Row():
            self._add("teacache", gr.Checkbox)
            self._add_slider("teacache_threshold", step=0.01)
        with gr.Row():
            self._add_slider("steps", step=1)
            self._add_slider("distilled_guidance_scale", step=0.1, elem_id="guidance")
        with gr.Row():
            self._add("random_seed", gr.Checkbox)
            self._add("seed", gr.Textbox, max_lines=1, interactive=False)
        with gr.Row():
            self._add_slider("crf", step=1)
            with gr.Column():
                self._add("keep_section_videos", gr.Checkbox)
                self._add("save_section_stills", gr.Checkbox)

    def _add(
        self, name: str, kind: type, choices: list[tuple[str, Any]] | None = None, **properties: Any
    ) -> None:
        """Lay out a field; `choices` are pairs of a key of `locales/` and a value."""
        keys: dict[str, Any] = {"label": f"page.{name}"} | ({"choices": choices} if choices else {})
        properties = {"elem_id": name.replace("_", "-"), "value": FIELDS[name].default} | properties
        self.fields[name] = self._labels.add(kind(**properties), **keys)

    def _add_slider(self, name: str, **properties: Any) -> None:
        low, high = field_limits(name)
        top = SLIDER_TOPS.get(name, high)
        self._add(name, gr.Slider, minimum=low, maximum=top, buttons=[], **properties)

"""The closed panel: everything that a first video does not need."""

from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.request import field_limits

from ...form import LOOP, NORMAL
from ..labels import Labels

MODES = [("page.mode_normal", NORMAL), ("page.mode_loop", LOOP)]
SECTION_SIZES = [("page.section_one", 1), ("page.section_half", 0.5)]
SLIDER_TOPS = {"all_padding": 3, "teacache_threshold": 1, "resolution": 1024}
"""The ends of sliders that requests go beyond."""


class Options:
    """The widgets of this part with a use of their own, laid out where it is made with the form's fields.

    `output_given` is the output folder of the command line, which can't be changed.
    """

    def __init__(self, labels: Labels, *, output_given: Path | None) -> None:
        _make_fields(labels)
        with gr.Row(equal_height=True):
            given = {"info": "page.output_folder_given"} if output_given is not None else {}
            what = {"value": output_given and str(output_given), "interactive": output_given is None}
            self.output_folder = labels.make(gr.Textbox, "output-folder", keys=given, **what, scale=3)
            self.open_folder = labels.make(gr.Button, "open-folder", min_width=100, scale=1)
        self.sound = labels.make(gr.Checkbox, "sound", value=True)
        with gr.Row(equal_height=True):
            self.hidden_note = gr.HTML(visible=False, elem_id="extras")
            self.clear_hidden = labels.make(gr.Button, "forget-extras", visible=False, size="sm", scale=0)


def _make_fields(labels: Labels) -> None:
    def slider(name: str, **properties: Any) -> None:
        low, high = field_limits(field := name.replace("-", "_"))
        top = SLIDER_TOPS.get(field, high)
        labels.make(gr.Slider, name, minimum=low, maximum=top, buttons=[], **properties)

    make = labels.make
    with gr.Row():
        make(gr.Radio, "mode", keys={"choices": MODES})
        make(gr.Radio, "section-seconds", keys={"choices": SECTION_SIZES})
    with gr.Row():
        slider("resolution", step=32)
        slider("end-frame-strength", step=0.01)
    with gr.Row():
        make(gr.Checkbox, "use-all-padding")
        slider("all-padding", step=0.1, visible=False)
    with gr.Row():
        make(gr.Checkbox, "teacache")
        slider("teacache-threshold", step=0.01)
    with gr.Row():
        slider("steps", step=1)
        slider("distilled-guidance-scale", step=0.1, elem_id="guidance")
    with gr.Row():
        make(gr.Checkbox, "random-seed")
        make(gr.Textbox, "seed", max_lines=1, interactive=False)
    with gr.Row():
        slider("crf", step=1)
        with gr.Column():
            make(gr.Checkbox, "keep-section-videos")
            make(gr.Checkbox, "save-section-stills")

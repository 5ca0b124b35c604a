"""The closed panel: everything that a first video does not need."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.request import field_limits

from ...desktop import has_folder_dialog
from ..labels import Labels
from .choice import Choice

SPEEDS = [("page.exact", False), ("page.fast", True)]
SECTION_SIZES = [("page.section_one", 1), ("page.section_half", 0.5)]
SIZES = {"draft": 384, "standard": 640, "large": 832}
MOTIONS = {"standard": None, "lively": 1.0, "livelier": 0.3}
"""Paddings of all sections: the smaller, the less the picture before pulls at a section."""
QUALITIES = {"best": 10, "high": 16, "small": 26}
"""The x264 CRF of an MP4."""
SLIDER_TOPS = {"teacache_threshold": 1}
"""The ends of sliders that requests go beyond."""


class Options:
    """The widgets of this part with a use of their own, laid out where it is made with the form's fields.

    `changes` and `reset` are laid out where the panel ends.

    Args:
        output_given: the output folder of the command line, which can't be changed.
        anywhere: the output folder may be anywhere on this computer; `browse` asks for it in a dialog.
    """

    def __init__(self, labels: Labels, *, output_given: Path | None, anywhere: bool) -> None:
        self._labels = labels
        self.changes = gr.HTML(elem_id="changes", render=False)
        self.reset = labels.make(gr.Button, "reset", visible=False, size="sm", render=False)
        make, slider = labels.make, partial(_slider, labels)
        with self._group("video"):
            size = Choice(labels, "resolution", SIZES, step=32)
            slider("end-frame-strength", step=0.01)
            make(gr.Checkbox, "random-seed")
            make(gr.Textbox, "seed", max_lines=1, interactive=False)
        with self._group("motion"):
            motion = Choice(labels, "all-padding", MOTIONS, step=0.1)
            make(gr.Radio, "section-seconds", keys={"choices": SECTION_SIZES})
        with self._group("quality"):
            with gr.Column(min_width=0):
                self.eight_bit = make(gr.Radio, "eight-bit", keys={"choices": SPEEDS}, value=False)
                self.eight_bit_note = gr.HTML(elem_id="eight-bit-note", padding=False)
            slider("steps", step=1)
            make(gr.Checkbox, "teacache")
            slider("teacache-threshold", step=0.01)
            slider("distilled-guidance-scale", step=0.1, elem_id="guidance")
            quality = Choice(labels, "crf", QUALITIES, step=1)
        with self._group("files"):
            kind = "given" if output_given is not None else "anywhere" if anywhere else "inside"
            info = {"info": f"page.output_folder_{kind}"}
            what = {"value": output_given and str(output_given), "interactive": output_given is None}
            self.output_folder = make(gr.Textbox, "output-folder", keys=info, **what)
            can_browse = kind == "anywhere" and has_folder_dialog()
            self.browse = make(gr.Button, "browse", size="sm", visible=can_browse)
            make(gr.Checkbox, "keep-section-videos")
            make(gr.Checkbox, "save-section-stills")
            make(gr.Checkbox, "embed-request")
            self.sound = make(gr.Checkbox, "sound", value=True)
        self.choices = [size, motion, quality]
        with gr.Row(equal_height=True):
            self.hidden_note = gr.HTML(visible=False, elem_id="extras")
            self.clear_hidden = make(gr.Button, "forget-extras", visible=False, size="sm", scale=0)

    def _group(self, name: str) -> Any:
        """Lay out a heading, and return the grid below it."""
        self._labels.make(gr.HTML, f"group-{name}", padding=False)
        return gr.Column(elem_classes=["ichi-group"])


def _slider(labels: Labels, name: str, **properties: Any) -> None:
    low, high = field_limits(field := name.replace("-", "_"))
    top = SLIDER_TOPS.get(field, high)
    labels.make(gr.Slider, name, minimum=low, maximum=top, buttons=[], **properties)

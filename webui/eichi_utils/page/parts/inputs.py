"""The part seen first: start image, end image, prompt, length, the estimate, Start and Stop."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...form import FIELDS
from ..labels import Labels

RAW: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""The options of handlers that take what the browser sends as it is: requests check every value, in the
page's language."""
PICTURE_HEIGHT = 210
PICTURE = {
    "type": "filepath",
    "image_mode": None,  # the file as it was uploaded
    "sources": ["upload", "clipboard"],
    "buttons": [],
    "elem_classes": ["ichi-picture"],
}

GALLERY = {"type": "filepath", "visible": False, "interactive": True, "columns": 2, "buttons": []}


@dataclass(frozen=True)
class Inputs:
    """The widgets of this part. `start_images` takes the place of `start` where several pictures were given;
    `dropped_files` takes whatever is dropped or opened. `refresh_estimate` and `too_large` are not for users:
    the page's script clicks them when the estimate may have changed, and when somebody chose too much to be
    sent."""

    start: Any
    start_images: Any
    end: Any
    prompt: Any
    seconds: Any
    estimate: Any
    refresh_estimate: Any
    too_large: Any
    start_button: Any
    stop_button: Any
    dropped_files: Any
    message: Any


def build_inputs(labels: Labels) -> Inputs:
    """Lay this part out where it is called."""
    with gr.Row(elem_id="pictures"):
        start = labels.add(
            gr.Image(height=PICTURE_HEIGHT, elem_id="start-image", min_width=140, **PICTURE),
            label="page.start_image",
            placeholder="page.drop_picture",
        )
        start_images = labels.add(
            gr.Gallery(height=PICTURE_HEIGHT, elem_id="several-images", min_width=140, **GALLERY),
            label="page.several_images",
        )
        end = labels.add(
            gr.Image(height=PICTURE_HEIGHT, elem_id="end-image", min_width=140, **PICTURE),
            label="page.end_image",
            placeholder="page.drop_picture",
        )
    prompt = labels.add(
        gr.Textbox(FIELDS["prompt"].default, lines=3, max_lines=8, elem_id="prompt"),
        label="page.prompt",
        placeholder="page.prompt_hint",
    )
    seconds = labels.add(
        gr.Slider(0.5, 120, FIELDS["seconds"].default, step=0.5, elem_id="seconds", buttons=[]),
        label="page.seconds",
    )
    estimate = gr.HTML(elem_id="outlook")
    refresh_estimate = gr.Button(visible="hidden", elem_id="look-again")
    too_large = gr.Button(visible="hidden", elem_id="too-large")
    message = gr.HTML(elem_id="message")
    with gr.Row(elem_id="buttons"):
        start_button = labels.add(
            gr.Button(variant="primary", elem_id="start", min_width=120, scale=2), value="page.start"
        )
        stop_button = labels.add(gr.Button(elem_id="stop", min_width=80, scale=1), value="page.stop")
        with gr.Column(elem_id="inbox-box", min_width=120, scale=1):
            dropped_files = labels.add(
                gr.UploadButton(file_count="multiple", elem_id="inbox"), label="page.open"
            )
    pictures, buttons = (start, start_images, end), (start_button, stop_button)
    hidden = (refresh_estimate, too_large)
    return Inputs(*pictures, prompt, seconds, estimate, *hidden, *buttons, dropped_files, message)

"""The part seen first: start image, end image, prompt, length, the estimate, Start and Stop."""

from typing import Any

import gradio as gr

from ...form import FIELDS
from ..labels import Labels

RAW: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""The options of handlers that take what the browser sends as it is: requests check every value, in the
page's language."""
SIZE = {"height": 210, "min_width": 140}
PICTURE = {
    "type": "filepath",
    "image_mode": None,  # the file as it was uploaded
    "sources": ["upload", "clipboard"],
    "buttons": [],
    "elem_classes": ["ichi-picture"],
}
GALLERY = {"type": "filepath", "visible": False, "interactive": True, "columns": 2, "buttons": []}


class Inputs:
    """The widgets of this part, laid out where it is made. `start_images` takes the place of `start` where
    several pictures were given; `dropped_files` takes whatever is dropped or opened. `refresh_estimate` and
    `too_large` are not for users: the page's script clicks them when the estimate may have changed, and when
    somebody chose too much to be sent."""

    def __init__(self, labels: Labels) -> None:
        with gr.Row(elem_id="pictures"):
            start = gr.Image(elem_id="start-image", **SIZE, **PICTURE)
            self.start = labels.add(start, label="page.start_image", placeholder="page.drop_picture")
            several = gr.Gallery(elem_id="several-images", **SIZE, **GALLERY)
            self.start_images = labels.add(several, label="page.several_images")
            end = gr.Image(elem_id="end-image", **SIZE, **PICTURE)
            self.end = labels.add(end, label="page.end_image", placeholder="page.drop_picture")
        prompt = gr.Textbox(FIELDS["prompt"].default, lines=3, max_lines=8, elem_id="prompt")
        self.prompt = labels.add(prompt, label="page.prompt", placeholder="page.prompt_hint")
        seconds = gr.Slider(0.5, 120, FIELDS["seconds"].default, step=0.5, elem_id="seconds", buttons=[])
        self.seconds = labels.add(seconds, label="page.seconds")
        self.estimate = gr.HTML(elem_id="outlook")
        self.refresh_estimate = gr.Button(visible="hidden", elem_id="look-again")
        self.too_large = gr.Button(visible="hidden", elem_id="too-large")
        self.message = gr.HTML(elem_id="message")
        with gr.Row(elem_id="buttons"):
            start_button = gr.Button(variant="primary", elem_id="start", min_width=120, scale=2)
            self.start_button = labels.add(start_button, value="page.start")
            stop_button = gr.Button(elem_id="stop", min_width=80, scale=1)
            self.stop_button = labels.add(stop_button, value="page.stop")
            with gr.Column(elem_id="inbox-box", min_width=120, scale=1):
                dropped_files = gr.UploadButton(file_count="multiple", elem_id="inbox")
                self.dropped_files = labels.add(dropped_files, label="page.open")

"""The part seen first: start image, end image, prompt, length, the estimate, Start and Stop."""

from typing import Any

import gradio as gr

from ..labels import Labels

RAW: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""The options of handlers that take what the browser sends as it is: requests check every value, in the
page's language."""
SIZE: dict[str, Any] = {"height": 210, "min_width": 140}
PICTURE: dict[str, Any] = {
    "type": "filepath",
    "image_mode": None,  # the file as it was uploaded
    "sources": ["upload", "clipboard"],
    "buttons": [],
    "elem_classes": ["ichi-picture"],
}
GALLERY: dict[str, Any] = {"type": "filepath", "interactive": True, "columns": 2, "buttons": []}


class Inputs:
    """The widgets of this part, laid out where it is made. `start_images` takes the place of `start` where
    several pictures were given; `dropped_files` takes whatever is dropped or opened. `refresh_estimate` and
    `too_large` are not for users: the page's script clicks them when the estimate may have changed, and when
    somebody chose too much to be sent."""

    def __init__(self, labels: Labels) -> None:
        make, hint = labels.make, {"placeholder": "page.drop_picture"}
        with gr.Row(elem_id="pictures"):
            self.start = make(gr.Image, "start-image", keys=hint, **SIZE, **PICTURE)
            self.start_images = make(gr.Gallery, "several-images", visible=False, **SIZE, **GALLERY)
            self.end = make(gr.Image, "end-image", keys=hint, **SIZE, **PICTURE)
        hint = {"placeholder": "page.prompt_hint"}
        self.prompt = make(gr.Textbox, "prompt", keys=hint, lines=3, max_lines=8)
        make(gr.Slider, "seconds", minimum=0.5, maximum=120, step=0.5, buttons=[])
        self.estimate = gr.HTML(elem_id="outlook")
        self.refresh_estimate = gr.Button(visible="hidden", elem_id="look-again")
        self.too_large = gr.Button(visible="hidden", elem_id="too-large")
        self.message = gr.HTML(elem_id="message")
        with gr.Row(elem_id="buttons"):
            self.start_button = make(gr.Button, "start", variant="primary", min_width=120, scale=2)
            self.stop_button = make(gr.Button, "stop", min_width=80, scale=1)
            with gr.Column(elem_id="inbox-box", min_width=120, scale=1):
                opens = {"label": "page.open"}
                self.dropped_files = make(gr.UploadButton, "inbox", keys=opens, file_count="multiple")

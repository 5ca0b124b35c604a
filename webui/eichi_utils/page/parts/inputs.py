"""The part seen first: start image, end image, prompt, length, the estimate, Start."""

from typing import Any

import gradio as gr

from diffusers_helper.sections import FPS, SectionSize, count_sections, pixel_frames

from ...text.translations import Translator
from ..labels import Labels
from ..routes import static_html
from .choice import OTHER, Choice

SIZE: dict[str, Any] = {"height": 180, "min_width": 140}
PICTURE: dict[str, Any] = {
    "type": "filepath",
    "image_mode": None,  # the file as it was uploaded
    "sources": ["upload", "clipboard"],
    "buttons": [],
    "elem_classes": ["ichi-picture"],
}
LENGTHS = (1, 2, 4, 6, 8, 16)
"""Seconds that the page offers."""
GALLERY: dict[str, Any] = {"type": "filepath", "interactive": True, "columns": 2, "buttons": []}


def length_choices(words: Translator, section_seconds: object) -> list[tuple[str, str]]:
    """Return the choices of the length: each says how long the video really becomes."""
    size = SectionSize(0.5 if section_seconds == 0.5 else 1.0)
    frames = {n: pixel_frames(1 + count_sections(n, size) * size.latent_frames) for n in LENGTHS}
    texts = [(words("page.length", seconds=n, true=f"{frames[n] / FPS:.2f}"), str(n)) for n in LENGTHS]
    return [*texts, (words("page.other"), OTHER)]


class Inputs:
    """The widgets of this part, laid out where it is made. `start_images` takes the place of `start` where
    several pictures were given; `dropped_files` takes whatever is dropped or opened. `refresh_estimate` and
    `refuse` are not for users: the page's script clicks them when the estimate may have changed, and for what
    it cannot send, because of its `refusal`. `kept` is what a tab remembers of its pictures (JSON).
    `unread` shows where a prompt is longer than the models read. `position` is the place of the video's frame
    in the pictures, which is moved on the stage."""

    def __init__(self, labels: Labels) -> None:
        make, hint = labels.make, {"placeholder": "page.drop_picture"}
        with gr.Row(elem_id="pictures"):
            self.start = make(gr.Image, "start-image", keys=hint, **SIZE, **PICTURE)
            self.start_images = make(gr.Gallery, "several-images", visible=False, **SIZE, **GALLERY)
            self.end = make(gr.Image, "end-image", keys=hint, **SIZE, **PICTURE)
        self.position = gr.Number(0.5, visible="hidden", elem_id="position")
        hint = {"placeholder": "page.prompt_hint"}
        with gr.Column(elem_id="prompt-box"):
            self.prompt = make(gr.Textbox, "prompt", keys=hint, lines=3, max_lines=3)
            self.unread = gr.HTML(elem_id="unread", padding=False)
            gr.HTML(static_html("prompt.html"), padding=False)
        lengths, choices = {str(n): float(n) for n in LENGTHS}, length_choices(labels.words, 1)
        self.seconds = Choice(labels, "seconds", lengths, choices=choices, minimum=0.5, step=0.5)
        with gr.Row(elem_id="ends"):
            make(gr.Checkbox, "loop", min_width=0)
            make(gr.Checkbox, "join", visible=False, min_width=0)
        self.estimate = gr.HTML(elem_id="outlook")
        self.refresh_estimate = gr.Button(visible="hidden", elem_id="look-again")
        self.refuse = gr.Button(visible="hidden", elem_id="refuse")
        self.refusal = gr.Textbox(visible=False, elem_id="refusal")
        self.message = gr.HTML(elem_id="message")
        self.kept = gr.Textbox(visible=False, elem_id="kept")
        with gr.Row(elem_id="buttons"):
            self.start_button = make(gr.Button, "start", variant="primary", min_width=120, scale=4)
            with gr.Column(elem_id="inbox-box", min_width=90, scale=1):
                opens = {"label": "page.open"}
                self.dropped_files = make(gr.UploadButton, "inbox", keys=opens, file_count="multiple")

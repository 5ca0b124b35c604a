"""What is seen first: start image, end image, prompt, length, what will come out, Start and Stop."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...form import FIELDS
from ..labels import Texts

PICTURE_HEIGHT = 210
PICTURE = {
    "type": "filepath",
    "image_mode": None,  # the file as it was uploaded
    "sources": ["upload", "clipboard"],
    "buttons": [],
    "elem_classes": ["ichi-picture"],
}


@dataclass(frozen=True)
class Inputs:
    """The widgets of this part. `several` takes the place of `start` where several pictures were given;
    `inbox` takes whatever is dropped or opened. `look_again` and `too_large` are not for users: the page's
    script clicks them when the outlook may have changed, and when somebody chose too much to be sent."""

    start: Any
    several: Any
    end: Any
    prompt: Any
    seconds: Any
    outlook: Any
    look_again: Any
    too_large: Any
    start_button: Any
    stop_button: Any
    inbox: Any
    message: Any


def build_inputs(texts: Texts) -> Inputs:
    """Lay this part out where it is called."""
    with gr.Row(elem_id="pictures"):
        start = texts.add(
            gr.Image(height=PICTURE_HEIGHT, elem_id="start-image", min_width=140, **PICTURE),
            label="page.start_image",
            placeholder="page.drop_picture",
        )
        several = texts.add(
            gr.Gallery(
                visible=False,
                interactive=True,
                columns=2,
                height=PICTURE_HEIGHT,
                type="filepath",
                elem_id="several-images",
                min_width=140,
                buttons=[],
            ),
            label="page.several_images",
        )
        end = texts.add(
            gr.Image(height=PICTURE_HEIGHT, elem_id="end-image", min_width=140, **PICTURE),
            label="page.end_image",
            placeholder="page.drop_picture",
        )
    prompt = texts.add(
        gr.Textbox(FIELDS["prompt"].default, lines=3, max_lines=8, elem_id="prompt"),
        label="page.prompt",
        placeholder="page.prompt_hint",
    )
    seconds = texts.add(
        gr.Slider(0.5, 120, FIELDS["seconds"].default, step=0.5, elem_id="seconds", buttons=[]),
        label="page.seconds",
    )
    outlook = gr.HTML(elem_id="outlook")
    look_again = gr.Button(visible="hidden", elem_id="look-again")
    too_large = gr.Button(visible="hidden", elem_id="too-large")
    message = gr.HTML(elem_id="message")
    with gr.Row(elem_id="buttons"):
        start_button = texts.add(
            gr.Button(variant="primary", elem_id="start", min_width=120, scale=2), value="page.start"
        )
        stop_button = texts.add(gr.Button(elem_id="stop", min_width=80, scale=1), value="page.stop")
        with gr.Column(elem_id="inbox-box", min_width=120, scale=1):
            inbox = texts.add(
                gr.UploadButton(file_count="multiple", elem_id="inbox"),
                label="page.open",
            )
    return Inputs(
        start=start,
        several=several,
        end=end,
        prompt=prompt,
        seconds=seconds,
        outlook=outlook,
        look_again=look_again,
        too_large=too_large,
        start_button=start_button,
        stop_button=stop_button,
        inbox=inbox,
        message=message,
    )

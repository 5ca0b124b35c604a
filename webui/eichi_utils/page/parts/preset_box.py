"""Prompts kept under names: save, take, delete, and one that stands there at the start."""

import gradio as gr

from ..labels import Labels


class PresetBox:
    """The widgets of this part, laid out where it is made."""

    def __init__(self, labels: Labels) -> None:
        make = labels.make
        with gr.Row(equal_height=True):
            self.choice = make(gr.Dropdown, "preset", choices=[], value=None, min_width=180, scale=2)
            with gr.Column(min_width=140, scale=1):
                self.apply = make(gr.Button, "apply-preset", size="sm")
                self.delete = make(gr.Button, "delete-preset", size="sm")
            self.startup = make(gr.Checkbox, "startup-preset", min_width=160, scale=2)
        with gr.Row(equal_height=True):
            self.name = make(gr.Textbox, "preset-name", max_lines=1, scale=3)
            self.save = make(gr.Button, "save-preset", size="sm", min_width=100, scale=1)

"""Prompts kept under names: save, take, delete, and one that stands there at the start."""

import gradio as gr

from ..labels import Labels


class PresetBox:
    """The widgets of this part, laid out where it is made."""

    def __init__(self, labels: Labels) -> None:
        with gr.Row(equal_height=True):
            choice = gr.Dropdown(choices=[], value=None, elem_id="preset", min_width=180, scale=2)
            self.choice = labels.add(choice, label="page.preset")
            with gr.Column(min_width=140, scale=1):
                apply = gr.Button(size="sm", elem_id="apply-preset")
                self.apply = labels.add(apply, value="page.preset_apply")
                delete = gr.Button(size="sm", elem_id="delete-preset")
                self.delete = labels.add(delete, value="page.preset_delete")
            startup = gr.Checkbox(elem_id="startup-preset", min_width=160, scale=2)
            self.startup = labels.add(startup, label="page.preset_startup")
        with gr.Row(equal_height=True):
            name = gr.Textbox(max_lines=1, elem_id="preset-name", scale=3)
            self.name = labels.add(name, label="page.preset_name")
            save = gr.Button(elem_id="save-preset", min_width=100, scale=1)
            self.save = labels.add(save, value="page.preset_save")

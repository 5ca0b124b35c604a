"""Prompts kept under names: save, take, delete, and one that stands there at the start."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..labels import Labels


@dataclass(frozen=True)
class PresetBox:
    """The widgets of this part."""

    choice: Any
    apply: Any
    delete: Any
    name: Any
    save: Any
    startup: Any


def build_preset_box(labels: Labels) -> PresetBox:
    """Lay this part out where it is called."""
    with gr.Row(equal_height=True):
        choice = labels.add(
            gr.Dropdown(choices=[], value=None, elem_id="preset", min_width=180, scale=2), label="page.preset"
        )
        with gr.Column(min_width=140, scale=1):
            apply = labels.add(gr.Button(size="sm", elem_id="apply-preset"), value="page.preset_apply")
            delete = labels.add(gr.Button(size="sm", elem_id="delete-preset"), value="page.preset_delete")
        startup = labels.add(
            gr.Checkbox(elem_id="startup-preset", min_width=160, scale=2),
            label="page.preset_startup",
            info="page.preset_startup_info",
        )
    with gr.Row(equal_height=True):
        name = labels.add(
            gr.Textbox(max_lines=1, elem_id="preset-name", scale=3),
            label="page.preset_name",
            info="page.preset_name_info",
        )
        save = labels.add(gr.Button(elem_id="save-preset", min_width=100, scale=1), value="page.preset_save")
    return PresetBox(choice, apply, delete, name, save, startup)

"""The closed panel: everything that a first video does not need."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...form import FIELDS, LOOP, NORMAL
from ..labels import Texts

MODES = [("page.mode_normal", NORMAL), ("page.mode_loop", LOOP)]
SECTION_SIZES = [("page.section_one", 1), ("page.section_half", 0.5)]


@dataclass(frozen=True)
class Options:
    """The widgets of this part: `fields` by their names in the form, and those with a use of their own."""

    fields: dict[str, Any]
    sound: Any
    output_folder: Any
    open_folder: Any
    extras_note: Any
    forget_extras: Any


def build_options(texts: Texts, *, output_given: str | None) -> Options:
    """Lay this part out. `output_given` is the output folder of the command line, which can't be changed."""
    fields = _video_fields(texts) | _speed_fields(texts) | _seed_fields(texts) | _file_fields(texts)
    with gr.Row(equal_height=True):
        output_folder = texts.add(
            gr.Textbox(output_given, interactive=output_given is None, elem_id="output-folder", scale=3),
            label="page.output_folder",
            info="page.output_folder_given" if output_given is not None else "page.output_folder_info",
        )
        open_folder = texts.add(
            gr.Button(elem_id="open-folder", min_width=100, scale=1), value="page.open_folder"
        )
    sound = texts.add(gr.Checkbox(True, elem_id="sound"), label="page.sound")
    with gr.Row(equal_height=True):
        extras_note = gr.HTML(visible=False, elem_id="extras")
        forget_extras = texts.add(
            gr.Button(visible=False, size="sm", elem_id="forget-extras", scale=0), value="page.forget_extras"
        )
    return Options(fields, sound, output_folder, open_folder, extras_note, forget_extras)


def _video_fields(texts: Texts) -> dict[str, Any]:
    with gr.Row():
        mode = texts.add(
            gr.Radio(value=NORMAL, elem_id="mode"), label="page.mode", info="page.mode_info", choices=MODES
        )
        section = texts.add(
            gr.Radio(value=1, elem_id="section-seconds"),
            label="page.section_seconds",
            choices=SECTION_SIZES,
            info="page.section_seconds_info",
        )
    with gr.Row():
        resolution = texts.add(
            gr.Slider(64, 1024, _default("resolution"), step=32, elem_id="resolution", buttons=[]),
            label="page.resolution",
            info="page.resolution_info",
        )
        strength = texts.add(
            gr.Slider(
                0, 1, _default("end_frame_strength"), step=0.01, elem_id="end-frame-strength", buttons=[]
            ),
            label="page.end_frame_strength",
            info="page.end_frame_strength_info",
        )
    with gr.Row():
        use_padding = texts.add(
            gr.Checkbox(_default("use_all_padding"), elem_id="use-all-padding"),
            label="page.use_all_padding",
            info="page.use_all_padding_info",
        )
        padding = texts.add(
            gr.Slider(
                0, 3, _default("all_padding"), step=0.1, visible=False, elem_id="all-padding", buttons=[]
            ),
            label="page.all_padding",
        )
    return {
        "mode": mode,
        "section_seconds": section,
        "resolution": resolution,
        "end_frame_strength": strength,
        "use_all_padding": use_padding,
        "all_padding": padding,
    }


def _speed_fields(texts: Texts) -> dict[str, Any]:
    with gr.Row():
        teacache = texts.add(
            gr.Checkbox(_default("teacache"), elem_id="teacache"),
            label="page.teacache",
            info="page.teacache_info",
        )
        threshold = texts.add(
            gr.Slider(
                0, 1, _default("teacache_threshold"), step=0.01, elem_id="teacache-threshold", buttons=[]
            ),
            label="page.teacache_threshold",
            info="page.teacache_threshold_info",
        )
    with gr.Row():
        steps = texts.add(
            gr.Slider(1, 100, _default("steps"), step=1, elem_id="steps", buttons=[]),
            label="page.steps",
            info="page.steps_info",
        )
        guidance = texts.add(
            gr.Slider(0, 32, _default("distilled_guidance_scale"), step=0.1, elem_id="guidance", buttons=[]),
            label="page.distilled_guidance_scale",
            info="page.distilled_guidance_scale_info",
        )
    return {
        "teacache": teacache,
        "teacache_threshold": threshold,
        "steps": steps,
        "distilled_guidance_scale": guidance,
    }


def _seed_fields(texts: Texts) -> dict[str, Any]:
    with gr.Row():
        random = texts.add(
            gr.Checkbox(_default("random_seed"), elem_id="random-seed"),
            label="page.random_seed",
            info="page.random_seed_info",
        )
        seed = texts.add(
            gr.Textbox(_default("seed"), max_lines=1, interactive=False, elem_id="seed"), label="page.seed"
        )
    return {"random_seed": random, "seed": seed}


def _file_fields(texts: Texts) -> dict[str, Any]:
    with gr.Row():
        crf = texts.add(
            gr.Slider(1, 51, _default("crf"), step=1, elem_id="crf", buttons=[]),
            label="page.crf",
            info="page.crf_info",
        )
        with gr.Column():
            videos = texts.add(
                gr.Checkbox(_default("keep_section_videos"), elem_id="keep-section-videos"),
                label="page.keep_section_videos",
            )
            stills = texts.add(
                gr.Checkbox(_default("save_section_stills"), elem_id="save-section-stills"),
                label="page.save_section_stills",
            )
    return {"crf": crf, "keep_section_videos": videos, "save_section_stills": stills}


def _default(name: str) -> Any:
    return FIELDS[name].default

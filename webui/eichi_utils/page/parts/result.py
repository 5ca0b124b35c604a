"""The right half: the video, the running job, what to do with a result, the queue."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...uploads.files import MAX_UPLOAD
from ..labels import Labels

STATIC = Path(__file__).resolve().parents[3] / "static"


@dataclass(frozen=True)
class Result:
    """The widgets of this part. `shown` and `running` are filled in by the page's script with ids of jobs."""

    again: Any
    proceed: Any
    take_settings: Any
    shown: Any
    running: Any


def build_preflight() -> None:
    """Lay out the preflight, which takes no room where everything is well."""
    gr.HTML(_static("setup.html"), padding=False)


def build_result(labels: Labels, language: str) -> Result:
    """Lay this part out where it is called; `static/page.js` brings it to life."""
    screen = _static("screen.html").replace("{language}", language).replace("{max_upload}", str(MAX_UPLOAD))
    gr.HTML(screen, padding=False)
    with gr.Row(elem_id="result-buttons"):
        again = labels.add(gr.Button(size="sm", elem_id="again", min_width=120), value="page.again")
        proceed = labels.add(gr.Button(size="sm", elem_id="continue", min_width=120), value="page.continue")
        take = labels.add(
            gr.Button(size="sm", elem_id="take-settings", min_width=120), value="page.take_settings"
        )
    gr.HTML(_static("work.html"), padding=False)
    gr.HTML(_static("queue.html"), padding=False)
    shown, running = gr.Textbox(visible=False), gr.Textbox(visible=False)
    return Result(again, proceed, take, shown, running)


def _static(name: str) -> str:
    return (STATIC / name).read_text("utf-8")

"""The right half: the video, the running job, what to do with a result, the queue."""

from pathlib import Path

import gradio as gr

from ...uploads.files import MAX_UPLOAD
from ..labels import Labels

STATIC = Path(__file__).resolve().parents[3] / "static"


class Result:
    """The widgets of this part, laid out where it is made; `static/page.js` brings it to life.

    `shown` and `running` are filled in by the page's script with ids of jobs.
    """

    def __init__(self, labels: Labels, language: str) -> None:
        screen = _static("screen.html").replace("{language}", language)
        gr.HTML(screen.replace("{max_upload}", str(MAX_UPLOAD)), padding=False)
        with gr.Row(elem_id="result-buttons"):
            self.again, self.proceed, self.take_settings = (
                labels.make(gr.Button, name, size="sm", min_width=120)
                for name in ("again", "continue", "take-settings")
            )
        gr.HTML(_static("work.html"), padding=False)
        gr.HTML(_static("queue.html"), padding=False)
        self.shown, self.running = gr.Textbox(visible=False), gr.Textbox(visible=False)


def build_preflight() -> None:
    """Lay out the preflight, which takes no room where everything is well."""
    gr.HTML(_static("setup.html"), padding=False)


def _static(name: str) -> str:
    return (STATIC / name).read_text("utf-8")

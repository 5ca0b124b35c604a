"""The right half: the video, the running job, what to do with a result, the queue."""

import gradio as gr

from ...uploads.files import MAX_UPLOAD
from ..labels import Labels
from ..routes import STATIC


class Result:
    """The widgets of this part, laid out where it is made; `static/page.js` brings it to life.

    `shown` and `running` are filled in by the page's script with ids of jobs.
    """

    def __init__(self, labels: Labels, language: str) -> None:
        screen = static_html("screen.html").replace("{language}", language)
        gr.HTML(screen.replace("{max_upload}", str(MAX_UPLOAD)), padding=False)
        with gr.Row(elem_id="result-buttons"):
            self.again, self.proceed, self.take_settings = (
                labels.make(gr.Button, name, size="sm", min_width=120)
                for name in ("again", "continue", "take-settings")
            )
        gr.HTML(static_html("work.html"), padding=False)
        gr.HTML(static_html("queue.html"), padding=False)
        self.shown, self.running = gr.Textbox(visible=False), gr.Textbox(visible=False)


def static_html(name: str) -> str:
    """Return a part of the page that its script brings to life."""
    return (STATIC / name).read_text("utf-8")

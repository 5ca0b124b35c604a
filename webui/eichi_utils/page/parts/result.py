"""The stage and what stands below it: the present state, what to do with a result, the jobs."""

import gradio as gr

from ...uploads.files import MAX_UPLOAD
from ..labels import Labels
from ..routes import static_html


class Result:
    """The widgets of this part, laid out where it is made; its scripts bring it to life.

    `shown` is filled in by the page's script with a job's id. The script clicks `edit` for a job of the
    queue, and `sample` for the picture of an empty stage.
    """

    def __init__(self, labels: Labels) -> None:
        with gr.Column(elem_id="stage"):
            gr.HTML(static_html("stage.html").replace("{max_upload}", str(MAX_UPLOAD)), padding=False)
            with gr.Row(elem_id="result-buttons"):
                self.stop = labels.make(gr.Button, "stop", size="sm", min_width=80, interactive=False)
                self.again, self.proceed, self.take_settings = (
                    labels.make(gr.Button, name, size="sm", min_width=80)
                    for name in ("again", "continue", "take-settings")
                )
                labels.make(gr.Button, "show-folder", keys={"value": "strip.folder"}, size="sm", min_width=80)
        gr.HTML(static_html("queue.html"), padding=False)
        gr.HTML(static_html("strip.html"), padding=False)
        gr.HTML(static_html("toast.html"), padding=False)
        self.edit = gr.Button(visible="hidden", elem_id="edit-job")
        self.sample = gr.Button(visible="hidden", elem_id="sample")
        self.shown = gr.Textbox(visible=False)

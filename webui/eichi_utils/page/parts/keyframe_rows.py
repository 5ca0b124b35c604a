"""Rows for the sections' own pictures and prompts: as many as the length has sections."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError
from diffusers_helper.sections import FPS, FRAMES_PER_LATENT, SectionSize

from ...app import AppState
from ...form import BLUE, RED, Row, section_image
from ...text.translations import Translator
from ...uploads.files import checked_picture, is_readable_in_part, make_view, uploaded_path
from .. import messages
from ..labels import RAW, Labels
from .inputs import PICTURE

ROW_HEIGHT = 120


@dataclass(frozen=True)
class RowPlan:
    """The appearance of the rows, which are drawn again when it changes.

    `count` is 0 where they are switched off; `drawn` rises when their pictures must be drawn anew.
    """

    count: int = 0
    section_seconds: float = 1.0
    copies: bool = False
    language: str = ""
    drawn: int = 0

    def redrawn(self) -> "RowPlan":
        return dataclasses.replace(self, drawn=self.drawn + 1)


def take_picture(app: AppState, file: Any, words: Translator, place: str) -> tuple[str | None, str]:
    """Check an uploaded picture; returns its path (None: there is none, or it was refused) and a message.

    The message about a picture that is cut offers to put what there is of it in its `place`.
    """
    path = None
    try:
        path = uploaded_path(file, app.uploads)
        return (None if path is None else checked_picture(path)), messages.NOTHING
    except EngineError as error:
        offer = f"take:{place}:{path}" if is_readable_in_part(error) else None
        return None, messages.problem(error, words, offer=offer)


def view_of(path: str | None) -> str | None:
    """Return the path of what the page shows of a row's picture; None where it is gone."""
    with contextlib.suppress(EngineError):
        return path and make_view(path)
    return None


class KeyframeRows:
    """The widgets of this part, laid out where it is made: two switches, and what the rows hold (states of
    the page). The rows are drawn whenever their plan changes. `message` is the widget for messages."""

    def __init__(self, labels: Labels, app: AppState, message: Any) -> None:
        labels.make(gr.Checkbox, "use-keyframes")
        labels.make(gr.Checkbox, "copy-keyframes", visible=False)
        self.rows, self.plan = gr.State({}), gr.State(RowPlan())
        self._app = app
        self._message = message

        @gr.render(inputs=[self.plan, self.rows], triggers=[self.plan.change], show_progress="hidden")
        def _draw(plan: RowPlan, rows: Mapping[int, Row]) -> None:
            for section in range(plan.count):
                shown = section_image(rows, section, plan.copies)
                self._draw_row(section, plan, rows.get(section, Row()), shown)

    def _draw_row(self, section: int, plan: RowPlan, row: Row, shown: str | None) -> None:
        words = self._app.translator(plan.language)
        label = _label(section, plan, words)
        colour = [] if not plan.copies else ["ichi-red" if section % 2 == RED else "ichi-blue"]
        with gr.Row(elem_classes=["ichi-row", *colour], elem_id=f"section-{section}"):
            image = gr.Image(
                view_of(shown),
                label=label,
                placeholder=words("page.drop_picture"),
                height=ROW_HEIGHT,
                min_width=120,
                scale=1,
                # without a key of its own, an emptied one would stay on the page
                key=f"image-{section}-{plan.drawn}-{plan.copies}",
                **PICTURE,
            )
            prompt = gr.Textbox(
                row.prompt,
                label=words("page.row_prompt", row=label),
                placeholder=words("page.row_prompt_hint"),
                lines=2,
                scale=3,
            )

        def with_row(rows: dict[int, Row], **values: Any) -> dict[int, Row]:
            return rows | {section: dataclasses.replace(rows.get(section, Row()), **values)}

        def set_image(file: Any, rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any, str, Any]:
            words = self._app.translator(plan.language)
            path, text = take_picture(self._app, file, words, f"section-{section}")
            if text:  # what was there stays
                path = rows.get(section, Row()).image
            is_drawn = bool(text) or path is None or (plan.copies and section in (RED, BLUE))
            return with_row(rows, image=path), plan.redrawn() if is_drawn else plan, text, view_of(path)

        def clear_image(rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any]:
            return with_row(rows, image=None), plan.redrawn() if plan.copies else plan

        def set_prompt(text: object, rows: dict[int, Row]) -> dict[int, Row]:
            return with_row(rows, prompt=text if isinstance(text, str) else "")

        states = [self.rows, self.plan]
        image.upload(set_image, [image, *states], [*states, self._message, image], **RAW)
        image.clear(clear_image, states, states, **RAW)
        prompt.change(set_prompt, [prompt, self.rows], self.rows, trigger_mode="always_last", **RAW)


def _label(section: int, plan: RowPlan, words: Translator) -> str:
    """A section's number and its part of the video: section 0 is made first and is the end."""
    length = SectionSize(plan.section_seconds).latent_frames * FRAMES_PER_LATENT / FPS
    begin = (plan.count - 1 - section) * length
    return words("page.row", section=section, begin=f"{begin:.1f}", end=f"{begin + length:.1f}")

"""Rows for the sections' own pictures and prompts: as many as the length has sections."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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

    `count` is 0 where they are switched off; `filled` rises when the app, and not a person, changed what they
    hold: until then a text field that stays keeps its text, which may be newer than what the server knows.
    """

    count: int = 0
    section_seconds: float = 1.0
    copies: bool = False
    language: str = ""
    filled: int = 0

    def refilled(self) -> "RowPlan":
        return dataclasses.replace(self, filled=self.filled + 1)


def change_row(rows: dict[int, Row], section: int, **values: Any) -> None:
    """Change a row in place: another handler may be changing another row, or the other half of this one."""
    rows[section] = dataclasses.replace(rows.get(section, Row()), **values)


def fill_rows(rows: dict[int, Row], others: Mapping[int, Row]) -> dict[int, Row]:
    """Replace what all rows hold, in place as well; returns them."""
    rows.clear()
    rows.update(others)
    return rows


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
        self._drawn = gr.State(set())
        self._app = app
        self._message = message

        @gr.render(
            inputs=[self.plan, self.rows, self._drawn], triggers=[self.plan.change], show_progress="hidden"
        )
        def _draw(plan: RowPlan, rows: dict[int, Row], drawn: set[str]) -> None:
            made = [self._draw_row(section, plan, rows, drawn) for section in range(plan.count)]
            images = [image for image, _ in made]
            for section, (_, prompt) in enumerate(made):
                self._wire_row(section, images, prompt)
            drawn.clear()
            drawn.update(prompt.key for _, prompt in made)

    def _draw_row(
        self, section: int, plan: RowPlan, rows: dict[int, Row], drawn: set[str]
    ) -> tuple[Any, Any]:
        """Lay out a row, and return its picture and its prompt.

        With keys, what was there stays the same field: nobody who is writing in it is interrupted.
        """
        words = self._app.translator(plan.language)
        label = _label(section, plan, words)
        colour = [] if not plan.copies else ["ichi-red" if section % 2 == RED else "ichi-blue"]
        name = f"section-{section}"
        with gr.Row(elem_classes=["ichi-row", *colour], elem_id=name, key=name):
            image = gr.Image(
                view_of(section_image(rows, section, plan.copies)),
                label=label,
                placeholder=words("page.drop_picture"),
                height=ROW_HEIGHT,
                min_width=120,
                scale=1,
                key=f"image-{section}",
                **PICTURE,
            )
            key = f"prompt-{section}-{plan.filled}"
            # gradio gives a field its value again, also one that has the same key and is written in
            value = {} if key in drawn else {"value": rows.get(section, Row()).prompt}
            prompt = gr.Textbox(
                label=words("page.row_prompt", row=label),
                placeholder=words("page.row_prompt_hint"),
                lines=2,
                scale=3,
                key=key,
                **value,
            )
        return image, prompt

    def _wire_row(self, section: int, images: list[Any], prompt: Any) -> None:
        def shown(rows: dict[int, Row], plan: RowPlan) -> dict[Any, Any]:
            """This row's picture, and where a loop copies it, all pictures."""
            sections = range(len(images)) if plan.copies and section in (RED, BLUE) else [section]
            return {images[s]: view_of(section_image(rows, s, plan.copies)) for s in sections}

        def set_image(file: Any, rows: dict[int, Row], plan: RowPlan) -> dict[Any, Any]:
            words = self._app.translator(plan.language)
            path, text = take_picture(self._app, file, words, f"section-{section}")
            if not text:  # else what was there stays
                change_row(rows, section, image=path)
            return {self.rows: rows, self._message: text, **shown(rows, plan)}

        def clear_image(rows: dict[int, Row], plan: RowPlan) -> dict[Any, Any]:
            change_row(rows, section, image=None)
            return {self.rows: rows, **shown(rows, plan)}

        def set_prompt(text: object, rows: dict[int, Row]) -> dict[int, Row]:
            change_row(rows, section, prompt=text if isinstance(text, str) else "")
            return rows

        image, outputs = images[section], [self.rows, self._message, *images]
        states = [self.rows, self.plan]
        image.upload(set_image, [image, *states], outputs, key=f"upload-{section}", **RAW)
        image.clear(clear_image, states, outputs, key=f"clear-{section}", **RAW)
        written = partial(prompt.change, trigger_mode="always_last", key=f"write-{section}")
        written(set_prompt, [prompt, self.rows], self.rows, **RAW)


def _label(section: int, plan: RowPlan, words: Translator) -> str:
    """A section's number and its part of the video: section 0 is made first and is the end."""
    length = SectionSize(plan.section_seconds).latent_frames * FRAMES_PER_LATENT / FPS
    begin = (plan.count - 1 - section) * length
    return words("page.row", section=section, begin=f"{begin:.1f}", end=f"{begin + length:.1f}")

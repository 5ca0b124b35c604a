"""Rows for the sections' own pictures and prompts: as many as the length has sections."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffusers_helper.sections import FPS, FRAMES_PER_LATENT, SectionSize

from ...form import BLUE, FIELDS, RED, Row, section_image
from ...text.translations import Translator
from ..labels import Labels
from .inputs import PICTURE, RAW

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


TakePicture = Callable[[Any, Translator], tuple[str | None, str]]
"""The check of an uploaded picture: returns its path (None: none, or a refused one) and a message."""


class KeyframeRows:
    """The widgets of this part, laid out where it is made: two switches, and what the rows hold (states of
    the page). The rows are drawn whenever their plan changes. `message` is the widget for messages."""

    def __init__(
        self, labels: Labels, words_of: Callable[[str], Translator], take_picture: TakePicture, message: Any
    ) -> None:
        use = gr.Checkbox(FIELDS["use_keyframes"].default, elem_id="use-keyframes")
        self.use = labels.add(use, label="page.use_keyframes")
        copy = gr.Checkbox(FIELDS["copy_keyframes"].default, visible=False, elem_id="copy-keyframes")
        self.copy = labels.add(copy, label="page.copy_keyframes")
        self.rows, self.plan = gr.State({}), gr.State(RowPlan())
        self._words_of = words_of
        self._take_picture = take_picture
        self._message = message

        @gr.render(inputs=[self.plan, self.rows], triggers=[self.plan.change], show_progress="hidden")
        def _draw(plan: RowPlan, rows: Mapping[int, Row]) -> None:
            for section in range(plan.count):
                shown = section_image(rows, section, plan.copies)
                self._draw_row(section, plan, rows.get(section, Row()), shown)

    def _draw_row(self, section: int, plan: RowPlan, row: Row, shown: str | None) -> None:
        words = self._words_of(plan.language)
        label = _label(section, plan, words)
        with gr.Row(elem_classes=["ichi-row", *_colour(section, plan)], elem_id=f"section-{section}"):
            image = gr.Image(
                shown,
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

        def set_image(file: Any, rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any, str]:
            path, text = self._take_picture(file, self._words_of(plan.language))
            is_drawn = path is None or (plan.copies and section in (RED, BLUE))
            return with_row(rows, image=path), plan.redrawn() if is_drawn else plan, text

        def clear_image(rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any]:
            return with_row(rows, image=None), plan.redrawn() if plan.copies else plan

        def set_prompt(text: object, rows: dict[int, Row]) -> dict[int, Row]:
            return with_row(rows, prompt=text if isinstance(text, str) else "")

        states = [self.rows, self.plan]
        image.upload(set_image, [image, *states], [*states, self._message], **RAW)
        image.clear(clear_image, states, states, **RAW)
        prompt.change(set_prompt, [prompt, self.rows], self.rows, trigger_mode="always_last", **RAW)


def _colour(section: int, plan: RowPlan) -> list[str]:
    colour = "ichi-red" if section % 2 == RED else "ichi-blue"
    return [colour] if plan.copies else []


def _label(section: int, plan: RowPlan, words: Translator) -> str:
    """A section's number and its part of the video: section 0 is made first and is the end."""
    length = SectionSize(plan.section_seconds).latent_frames * FRAMES_PER_LATENT / FPS
    begin = (plan.count - 1 - section) * length
    return words("page.row", section=section, begin=f"{begin:.1f}", end=f"{begin + length:.1f}")

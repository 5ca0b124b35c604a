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


@dataclass(frozen=True)
class KeyframeRows:
    """The widgets of this part: two switches, and what the rows hold (states of the page)."""

    use: Any
    copy: Any
    rows: Any
    plan: Any


TakePicture = Callable[[Any, Translator], tuple[str | None, str]]
"""The check of an uploaded picture: returns its path (None: none, or a refused one) and a message."""


def build_keyframe_rows(
    labels: Labels, words_of: Callable[[str], Translator], take_picture: TakePicture, message: Any
) -> KeyframeRows:
    """Lay this part out where it is called. `message` is the widget for messages."""
    use = labels.add(
        gr.Checkbox(FIELDS["use_keyframes"].default, elem_id="use-keyframes"),
        label="page.use_keyframes",
        info="page.use_keyframes_info",
    )
    copy = labels.add(
        gr.Checkbox(FIELDS["copy_keyframes"].default, visible=False, elem_id="copy-keyframes"),
        label="page.copy_keyframes",
        info="page.copy_keyframes_info",
    )
    part = KeyframeRows(use, copy, gr.State({}), gr.State(RowPlan()))
    _draw_rows(part, words_of, take_picture, message)
    return part


def _draw_rows(
    part: KeyframeRows, words_of: Callable[[str], Translator], take_picture: TakePicture, message: Any
) -> None:
    """Draw the rows whenever their plan changes."""

    @gr.render(inputs=[part.plan, part.rows], triggers=[part.plan.change], show_progress="hidden")
    def _draw(plan: RowPlan, rows: Mapping[int, Row]) -> None:
        words = words_of(plan.language)
        for section in range(plan.count):
            _draw_row(section, plan, rows, words)

    def _draw_row(section: int, plan: RowPlan, rows: Mapping[int, Row], words: Translator) -> None:
        label = _label(section, plan, words)
        with gr.Row(elem_classes=["ichi-row", *_colour(section, plan)], elem_id=f"section-{section}"):
            image = gr.Image(
                section_image(rows, section, plan.copies),
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
                rows.get(section, Row()).prompt,
                label=words("page.row_prompt", row=label),
                placeholder=words("page.row_prompt_hint"),
                lines=2,
                scale=3,
            )

        def with_row(rows: dict[int, Row], **values: Any) -> dict[int, Row]:
            return rows | {section: dataclasses.replace(rows.get(section, Row()), **values)}

        def set_image(file: Any, rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any, str]:
            path, text = take_picture(file, words_of(plan.language))
            drawn = path is None or (plan.copies and section in (RED, BLUE))
            return with_row(rows, image=path), _redrawn(plan) if drawn else plan, text

        def clear_image(rows: dict[int, Row], plan: RowPlan) -> tuple[Any, Any]:
            return with_row(rows, image=None), _redrawn(plan) if plan.copies else plan

        def set_prompt(text: object, rows: dict[int, Row]) -> dict[int, Row]:
            return with_row(rows, prompt=text if isinstance(text, str) else "")

        image.upload(set_image, [image, part.rows, part.plan], [part.rows, part.plan, message], **RAW)
        image.clear(clear_image, [part.rows, part.plan], [part.rows, part.plan], **RAW)
        prompt.change(set_prompt, [prompt, part.rows], part.rows, trigger_mode="always_last", **RAW)


def _redrawn(plan: RowPlan) -> RowPlan:
    return dataclasses.replace(plan, drawn=plan.drawn + 1)


def _colour(section: int, plan: RowPlan) -> list[str]:
    if not plan.copies:
        return []
    return ["ichi-red" if section % 2 == RED else "ichi-blue"]


def _label(section: int, plan: RowPlan, words: Translator) -> str:
    """A section's number and its part of the video: section 0 is made first and is the end."""
    length = SectionSize.of(plan.section_seconds).latent_frames * FRAMES_PER_LATENT / FPS
    begin = (plan.count - 1 - section) * length
    return words("page.row", section=section, begin=f"{begin:.1f}", end=f"{begin + length:.1f}")

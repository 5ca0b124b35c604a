"""The opening of a page: it shows the settings, what its tab remembers, and notes in its language."""

import dataclasses

import gradio as gr

from ..form import FIELDS
from ..text.translations import Translator
from . import messages
from .handlers import estimate_html, plan_rows, seed_label
from .kept import read_kept
from .parts.keyframe_rows import fill_rows, view_of
from .preset_handlers import show_preset
from .restoring import show_hidden
from .setting_handlers import length_update, show_changes, show_eight_bit
from .widgets import NOT_EDITED, Data, Page, Updates, text_of


def open_page(page: Page, data: Data) -> Updates:
    """Show what belongs to a page that was just opened; one that was loaded anew has its pictures again."""
    shown = {
        page.inputs.estimate: estimate_html(page, data),
        page.keyframes.plan: plan_rows(page, data),
        page.message: show_notices(page, page.words(data)),
        **show_eight_bit(page, data),
        **show_changes(page, data),
    }
    return shown | _restore_kept(page, data)


def _restore_kept(page: Page, data: Data) -> Updates:
    """Put back what a tab remembers: its pictures, its rows, and the settings that no field shows."""
    if own := text_of(data, page.inputs.kept):
        kept = read_kept(page, own)
    elif (kept := read_kept(page, page.app.form_before)) is not None:
        kept = dataclasses.replace(kept, edited=NOT_EDITED)  # which only one tab does
    if kept is None:
        return {}
    pictures = kept.pictures
    # nothing is taken from a quick hand
    updates: Updates = page.with_starts(pictures.start, pictures.position) if pictures.start else {}
    updates[page.edited] = kept.edited
    if pictures.end:
        updates[page.inputs.end] = view_of(pictures.end)
    if pictures.rows:
        rows = fill_rows(data[page.keyframes.rows], pictures.rows)
        updates |= {page.keyframes.rows: rows, page.keyframes.plan: plan_rows(page, data).refilled()}
    if kept.seed_source is not None:
        updates |= {page.fields["random_seed"]: False, page.fields["seed"]: kept.seed_source["seed"]}
        updates[page.seed_source] = kept.seed_source
    return updates | (show_hidden(page, kept.hidden, page.words(data)) if kept.hidden else {})


def restore_settings(page: Page) -> Updates:
    """Fill in the settings on a page that was just opened."""
    app, options, known = page.app, page.options, page.app.settings.load()
    updates = page.filled({key: known[key] for key in FIELDS})
    radio = page.inputs.seconds.radio
    updates[radio] |= length_update(page, app.page_translator(), known["section_seconds"])[radio]
    updates[options.sound] = gr.update(value=known["sound"])
    updates[options.eight_bit] = gr.update(value=known["eight_bit"])
    if app.options.output is None:
        updates[options.output_folder] = gr.update(value=known["output_folder"])
    return updates | show_preset(page, app.presets.startup_name())


def show_notices(page: Page, words: Translator) -> str:
    """Show once which files could not be read."""
    texts = [words(f"notice.{notice.code}", **notice.values) for notice in page.app.take_notices()]
    return messages.note("\n".join(texts)) if texts else messages.NOTHING


def translate_notes(page: Page, data: Data, words: Translator) -> Updates:
    """Put standing notes into the language that was chosen; passed messages go."""
    note = page.options.hidden_note
    return {
        note: show_hidden(page, data[page.hidden_settings], words)[note],
        page.message: messages.NOTHING,
        page.fields["seed"]: seed_label(page, data, words),
        **show_eight_bit(page, data),
        **length_update(page, words, page.values(data)["section_seconds"]),
    }

"""Handlers of the prompt presets: choose, apply, save, delete, and one for the start."""

import gradio as gr

from diffusers_helper.errors import InputError

from . import messages
from .restoring import note_with_undo
from .widgets import Data, Page, Updates, text_of

UNDO_CHANGE = "presets"
"""The word by which the page's script asks for a change to be taken back."""


def wire_presets(page: Page) -> None:
    box, widgets = page.presets, [page.presets.choice, page.presets.name, page.presets.startup]
    for event, act in (
        (box.choice.input, choose_preset),
        (box.apply.click, apply_preset),
        (box.save.click, save_preset),
        (box.delete.click, delete_preset),
        (box.startup.input, mark_preset),
    ):
        page.on(event, act, [page.message, page.inputs.prompt, *widgets], *widgets)


def show_preset(page: Page, name: str | None) -> Updates:
    """Updates that show the stored presets with `name` chosen, where it is one."""
    names = page.app.presets.names()
    chosen = name if name in names else None
    is_startup = chosen is not None and chosen == page.app.presets.startup_name()
    return {
        page.presets.choice: gr.update(choices=[(known, known) for known in names], value=chosen),
        page.presets.startup: gr.update(value=is_startup, interactive=chosen is not None),
    }


def choose_preset(page: Page, data: Data) -> Updates:
    name = text_of(data, page.presets.choice)
    return {page.presets.name: name} | show_preset(page, name)


def apply_preset(page: Page, data: Data) -> Updates:
    """Put a preset in the place of the prompt, with an undo where that was another text."""
    name, before = _chosen(page, data), text_of(data, page.inputs.prompt)
    prompt = page.app.presets.prompt_of(name)
    page.app.remember(prompt=prompt)
    note: Updates = {page.message: messages.NOTHING}
    if before.strip() not in ("", prompt.strip()):
        note = note_with_undo(page, data, "page.preset_used", ["prompt"], name=name)
    return {page.inputs.prompt: prompt} | note


def save_preset(page: Page, data: Data) -> Updates:
    name = text_of(data, page.presets.name).strip()
    replaced = page.app.presets.save(name, text_of(data, page.inputs.prompt))
    note = page.note(data, "page.preset_saved", name=name)
    if replaced:
        note = _note_with_undo(page, data, "page.preset_replaced", name)
    return note | show_preset(page, name)


def delete_preset(page: Page, data: Data) -> Updates:
    name = _chosen(page, data)
    page.app.presets.delete(name)
    note = _note_with_undo(page, data, "page.preset_deleted", name)
    return note | show_preset(page, None) | {page.presets.name: ""}


def _note_with_undo(page: Page, data: Data, key: str, name: str) -> Updates:
    words = page.words(data)
    undo = words("live.undo"), f"{UNDO_CHANGE}:{page.app.presets.changes}:{name}"
    return {page.message: messages.note(words(key, name=name), undo)}


def undo_change(page: Page, data: Data, change: str) -> Updates:
    """Take a change of the presets back, if it was the last one."""
    number, _, name = change.partition(":")
    if not (number.isdecimal() and page.app.presets.undo(int(number[:9]))):
        return page.note(data, "live.undo_too_late")
    return {page.message: messages.NOTHING, page.presets.name: name} | show_preset(page, name)


def mark_preset(page: Page, data: Data) -> Updates:
    """Put the chosen preset at the start, or no longer."""
    name, marked = _chosen(page, data), bool(data[page.presets.startup])
    if marked != (page.app.presets.startup_name() == name):
        page.app.presets.mark_startup(name if marked else None)
    return page.note(data, "page.preset_marked" if marked else "page.preset_unmarked", name=name)


def _chosen(page: Page, data: Data) -> str:
    name = text_of(data, page.presets.choice)
    if not name:
        raise InputError("choose_preset")
    return name

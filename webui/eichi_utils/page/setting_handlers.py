"""Handlers of settings: remember what a person changes, show what differs from the defaults, reset it."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from diffusers_helper.request import is_field_value

from ..form import FIELDS
from ..text.translations import Translator
from . import messages
from .estimate import needed_for_eight_bit
from .labels import RAW
from .parts.choice import Choice
from .parts.inputs import length_choices
from .restoring import note_with_undo
from .widgets import Data, Page, Updates

IN_FRONT = {"prompt", "seconds", "loop", "join"}
"""The fields outside of the closed panel."""


def wire_settings(page: Page) -> None:
    options, choices = page.options, {choice.name: choice for choice in page.choices}
    kept = page.fields | {"sound": options.sound}
    for name, widget in kept.items():  # `input`: a person did it; of a text it knows neither paste nor IME
        if name in choices:
            continue
        event = widget.change if isinstance(widget, gr.Textbox) else widget.input
        event(_remember_field(page, name, widget), widget, None, trigger_mode="always_last", **RAW)
    for choice in choices.values():
        for widget in (choice.radio, choice.number):
            remember, asked = _remember_choice(page, choice), {choice.radio, choice.number}
            widget.input(remember, asked, None, trigger_mode="always_last", **RAW)
    page.on(options.eight_bit.input, choose_weights, [options.eight_bit_note], trigger_mode="always_last")
    page.on(page.fields["section_seconds"].change, relabel_lengths, [page.inputs.seconds.radio])
    page.on(options.reset.click, reset_settings, [*page.form_widgets, page.message])


def _remember_field(page: Page, name: str, widget: Any) -> Callable[[Any], None]:
    """Return the handler that remembers one field as soon as a person has changed it."""

    def remember(value: Any) -> None:
        if isinstance(widget, gr.Slider):  # a typed number: the page puts it inside the slider, too
            value = _inside(value, widget, page.app.settings.load()[name])
        page.app.remember(**{name: "" if value is None else value})

    return remember


def _remember_choice(page: Page, choice: Choice) -> Callable[[Data], None]:
    def remember(data: Data) -> None:
        value = choice.value(data)
        if is_field_value(choice.name, value):  # else the form says what is wrong, and the last one stays
            page.app.remember(**{choice.name: value})

    return remember


def _inside(value: Any, slider: gr.Slider, largest: Any) -> Any:
    """A number inside the slider's limits, of which the upper one is at least `largest`."""
    if not isinstance(value, int | float):
        return slider.minimum
    return min(max(value, slider.minimum), max(slider.maximum, largest))


# -- what differs from the defaults --------------------------------------------------------------------


def changed_settings(page: Page, data: Data) -> list[str]:
    """Return the names of the panel's fields that differ from their defaults."""
    values = page.values(data)
    ignored = IN_FRONT | ({"seed"} if values["random_seed"] else set())
    defaults = page.app.settings.defaults
    return [name for name in FIELDS if name not in ignored and values[name] != defaults[name]]


def show_changes(page: Page, data: Data) -> Updates:
    """Show how many of the panel's settings differ from their defaults, and which to the page's script."""
    words, names = page.words(data), changed_settings(page, data)
    text = words("page.changes", count=len(names)) if names else ""
    ids = " ".join(page.fields[name].elem_id for name in names)
    return {
        page.options.changes: messages.plain(text, changed=ids),
        page.options.reset: gr.update(visible=bool(names)),
    }


def reset_settings(page: Page, data: Data) -> Updates:
    """Put the panel's settings back to their defaults, with an undo."""
    names, defaults = changed_settings(page, data), page.app.settings.defaults
    reset = {name: defaults[name] for name in names}
    page.app.remember(**reset)
    filled = page.filled(page.values(data) | reset, names)
    return filled | note_with_undo(page, data, "page.reset_done", names)


def relabel_lengths(page: Page, data: Data) -> Updates:
    """Show the true seconds of each length, which depend on the sections' size."""
    return length_update(page, page.words(data), page.values(data)["section_seconds"])


def length_update(page: Page, words: Translator, section_seconds: object) -> Updates:
    """The update of the lengths' words."""
    return {page.inputs.seconds.radio: gr.update(choices=length_choices(words, section_seconds))}


# -- the weights -----------------------------------------------------------------------------------------


def choose_weights(page: Page, data: Data) -> Updates:
    """Remember which weights the next jobs use: with other ones, other things matter on this computer."""
    page.app.remember(eight_bit=page.eight_bit(data))
    page.app.preflight.check_again()
    return show_eight_bit(page, data)


def show_eight_bit(page: Page, data: Data) -> Updates:
    """Show what the fast weights need on this computer, where they are chosen."""
    note = messages.NOTHING
    if page.eight_bit(data):
        note = messages.plain(needed_for_eight_bit(page.app, page.words(data)))
    return {page.options.eight_bit_note: note}

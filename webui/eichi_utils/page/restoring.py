"""The filling of the form with a request that comes back, and the undo of whatever the app fills in."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from diffusers_helper.request import GenerationRequest

from ..form import FIELDS, HIDDEN_SETTINGS, OWN_CHOICES, SEED, from_request
from ..text.translations import Translator
from ..uploads.continued import copy_last_frame
from ..uploads.files import check_embedded_pictures
from . import messages
from .kept import Kept, read_kept, write_kept
from .parts.keyframe_rows import fill_rows, view_of
from .widgets import NOT_EDITED, Data, Edited, Page, Updates, source_of_seed

UNDO = "form"
"""The word by which the page's script asks for what the form held before."""


def restore_request(
    page: Page, request: GenerationRequest, data: Data, edited: Edited = NOT_EDITED
) -> Updates:
    """Fill the form with a request, its pictures and its hidden settings, and offer an undo.

    One that is not of an `edited` job is from a file: it brings a seed for its pictures alone, and no choice
    about the files to come.
    """
    note = note_with_undo(page, data, "page.restored")
    check_embedded_pictures(request)
    values, pictures, hidden = from_request(request, page.app.uploads / "restored")
    if not request.keyframes:
        values["copy_keyframes"] = page.values(data)["copy_keyframes"]
    if request.previous_video is None:
        values["join"] = page.values(data)["join"]
    else:
        start = copy_last_frame(pictures.start[0], Path(request.previous_video), page.app.uploads)
        pictures = dataclasses.replace(pictures, start=(start,))
    source, remembered = None, dict(values)
    if not edited.job:
        values |= {name: page.values(data)[name] for name in OWN_CHOICES}
        remembered = {name: value for name, value in values.items() if name not in SEED}
        source = None if request.seed is None else source_of_seed(values["seed"], pictures)
    page.app.remember(**remembered)
    return page.filled(values) | _fill_rest(page, data, Kept(pictures, hidden, source, edited)) | note


def _fill_rest(page: Page, data: Data, kept: Kept) -> Updates:
    """Fill in all that is no plain value; another job of the queue that was being edited waits again."""
    pictures, queue, keyframes = kept.pictures, page.app.queue, page.keyframes
    if (before := data[page.edited].job) != kept.edited.job:
        queue.release(before)
    return {
        page.edited: kept.edited if queue.hold(kept.edited.job) else NOT_EDITED,
        page.seed_source: kept.seed_source,
        **page.with_starts(pictures.start, pictures.position),
        page.inputs.end: view_of(pictures.end),
        keyframes.rows: fill_rows(data[keyframes.rows], pictures.rows),
        keyframes.plan: data[keyframes.plan].refilled(),
        **show_hidden(page, kept.hidden, page.words(data)),
    }


def show_hidden(page: Page, settings: dict[str, Any], words: Translator) -> Updates:
    options = page.options
    shown = [key for key in HIDDEN_SETTINGS if key in settings]
    lines = [words("page.extra", name=words(f"field.{key}"), value=settings[key]) for key in shown]
    text = messages.note(words("page.extras", list=" / ".join(lines))) if lines else ""
    return {
        page.hidden_settings: settings,
        options.hidden_note: gr.update(value=text, visible=bool(lines)),
        options.clear_hidden: gr.update(visible=bool(lines)),
    }


# -- undo ---------------------------------------------------------------------------------------------


def note_with_undo(
    page: Page, data: Data, key: str, names: Iterable[str] | None = None, rest: str = "", **values: object
) -> Updates:
    """The update that shows a message about what is put into the form, with an undo.

    Args:
        names: the fields that change; None where all of them do, and the pictures and hidden settings.
        rest: what the tab remembers of the latter, where some fields alone are named and these change, too.
    """
    words = page.words(data)
    undo = words("live.undo"), undo_of(page, data, names, rest)
    return {page.message: messages.note(words(key, **values), undo)}


def undo_of(page: Page, data: Data, names: Iterable[str] | None = None, rest: str = "") -> str:
    """Return what the page's script says to bring back what the form holds now, see `note_with_undo`."""
    held = page.values(data)
    if names is None:
        names, rest = FIELDS, write_kept(page, data, page.pictures(data))
    return f"{UNDO}:{json.dumps({'fields': {name: held[name] for name in names}, 'rest': rest})}"


def take_back(page: Page, data: Data, before: str) -> Updates:
    """Bring back what the form held; what is none of that (a program's) changes nothing."""
    try:
        held = json.loads(before)
        known = {name: value for name, value in held["fields"].items() if name in FIELDS}
        rest = held.get("rest", "")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}
    known = {name: value for name, value in known.items() if FIELDS[name].takes(value)}
    kept = read_kept(page, rest)
    is_seed_from_file = kept is not None and kept.seed_source is not None
    page.app.remember(**{key: known[key] for key in known if not (is_seed_from_file and key in SEED)})
    updates = page.filled(page.values(data) | known, known) | {page.message: messages.NOTHING}
    return updates if kept is None else updates | _fill_rest(page, data, kept)

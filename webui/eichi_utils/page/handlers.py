"""Handlers of the form: estimate what it makes, check pictures, and bring a request back."""

import dataclasses
from functools import partial
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.request import GenerationRequest

from ..form import SEED, UNKNOWN_PICTURE, copies_pictures, count_rows, request_size, to_requests
from ..jobs.imports import begin_import
from ..text.translations import Translator
from ..uploads.cleanup import delete_upload
from ..uploads.files import (
    MAX_UPLOAD,
    MB,
    checked_picture,
    embedded_request,
    is_video,
    make_view,
    read_in_part,
    uploaded_path,
    uploaded_paths,
)
from . import messages
from .estimate import estimate
from .job_handlers import RELEASE, stop_editing
from .kept import kept_paths, write_kept
from .parts.keyframe_rows import RowPlan, change_row, take_picture, view_of
from .preset_handlers import UNDO_CHANGE, undo_change
from .restoring import UNDO, note_with_undo, restore_request, show_hidden, take_back
from .setting_handlers import show_changes, show_eight_bit
from .state import start_key
from .unread import show_unread
from .widgets import Data, Page, Updates, text_of

REFUSALS = ("upload_too_large", "one_picture_here", "folder_dropped", "address_dropped", "nothing_pasted")


def wire_inputs(page: Page) -> None:
    inputs, options = page.inputs, page.options
    pictures = [inputs.start, inputs.start_images, inputs.end, inputs.position]
    states = [page.keyframes.rows, page.hidden_settings, page.seed_source, page.edited]
    watched = [*page.form_widgets, *pictures, *states, page.language]
    changes = partial(gr.on, [widget.change for widget in watched])
    changed = page.on(changes, refresh_form, [*page.shown_widgets, inputs.kept], trigger_mode="always_last")
    changed.then(None, inputs.kept, None, js="(form) => { ichi.keep(form); return []; }")
    uploads = partial(gr.on, [inputs.start.upload, inputs.end.upload])
    answers = [*pictures, page.message, page.seed_source, *(page.fields[name] for name in SEED)]
    page.on(uploads, check_pictures, answers, inputs.kept)
    page.on(inputs.start_images.change, restore_single_start, answers)
    page.on(inputs.start_images.upload, check_start_images, answers)
    looked_at = [inputs.estimate, options.eight_bit_note]
    page.on(inputs.refresh_estimate.click, refresh_estimate, looked_at)
    refused = inputs.refuse.click(None, None, inputs.refusal, js="() => ichi.refusal()")
    heard = [*page.restored_widgets, page.presets.choice, page.presets.name, page.presets.startup]
    page.on(refused.then, hear_script, heard, inputs.refusal)
    opened = page.on(inputs.dropped_files.upload, open_files, page.restored_widgets, inputs.dropped_files)
    opened.then(None, None, None, js="() => { ichi.taken(); return []; }")  # where it failed, too
    page.on(options.clear_hidden.click, clear_hidden_settings, page.restored_widgets)


# -- what comes out of the form ----------------------------------------------------------------------


def refresh_form(page: Page, data: Data) -> Updates:
    """Estimate the video, and show the fields that belong to the switches; the tab keeps its pictures."""
    pictures, seed = page.pictures(data), page.fields["seed"]
    switched = page.switched(page.values(data))
    return {
        page.inputs.estimate: estimate_html(page, data),
        page.keyframes.plan: plan_rows(page, data),
        page.inputs.kept: write_kept(page, data, pictures),
        **switched,
        page.fields["join"]: gr.update(visible=pictures.previous is not None),
        seed: switched[seed] | seed_label(page, data, page.words(data)),
        **show_changes(page, data),
        **show_unread(page, data),
    }


def seed_label(page: Page, data: Data, words: Translator) -> dict[str, Any]:
    """Return the update of the seed's name: beside it stands where it has come from."""
    return gr.update(label=words("page.seed_from_video" if page.is_seed_from_file(data) else "page.seed"))


def refresh_estimate(page: Page, data: Data) -> Updates:
    """Estimate anew after a job, which shows how long the next one takes, and with other models."""
    return {page.inputs.estimate: estimate_html(page, data), **show_eight_bit(page, data)}


def plan_rows(page: Page, data: Data) -> RowPlan:
    values, old = page.values(data), data[page.keyframes.plan]
    count = count_rows(values) if values["use_keyframes"] else 0
    section_seconds = 0.5 if values["section_seconds"] == 0.5 else 1.0
    return RowPlan(count, section_seconds, copies_pictures(values), page.words(data).language, old.filled)


def estimate_html(page: Page, data: Data) -> str:
    words = page.words(data)
    try:
        page.output_folder(data)
        requests = _requests_so_far(page, data)
        speed = page.app.speed.speeds.get(page.app.settings.load()["machine"])
        height, width = request_size(requests[0]) or (0, 0)
        return messages.plain(
            estimate(requests, speed, words) + _edited(page, data), width=width, height=height
        )
    except EngineError as error:
        return messages.hint(error, words)


def _edited(page: Page, data: Data) -> str:
    """Return a line that says what Start does while one of the queue's jobs is in the form."""
    queue, words = page.app.queue, page.words(data)
    job = queue.find(data[page.edited].job)
    if job is None or not job.held:
        return ""
    return "\n" + words("page.outlook_edited", button=words(start_key(queue.view())))


def _requests_so_far(page: Page, data: Data) -> list[GenerationRequest]:
    """The requests that Start would make; where no picture begins the video yet, with an unknown one."""
    values, pictures = page.requested(data), page.pictures(data)
    hidden = data[page.hidden_settings]
    try:
        return to_requests(values, pictures, hidden)
    except InputError as error:
        if error.code != "choose_start_image":
            raise
    return to_requests(values, dataclasses.replace(pictures, start=(UNKNOWN_PICTURE,)), hidden)


# -- pictures and files ------------------------------------------------------------------------------


def hear_script(page: Page, data: Data) -> Updates:
    """Report why the page's script has sent nothing, or what the server said to it; take a cut picture, or
    something back."""
    code, _, rest = text_of(data, page.inputs.refusal).partition(":")
    if code == "take":
        return _take_in_part(page, data, *rest.split(":", 1))
    if code == UNDO_CHANGE:
        return undo_change(page, data, rest)
    if code == UNDO:
        return take_back(page, data, rest)
    if code == RELEASE:
        return stop_editing(page, data, rest)
    if code == "said":
        return {page.message: messages.note(rest)}
    key = f"page.{code}" if code in REFUSALS else "page.not_sent"
    return page.note(data, key, megabytes=MAX_UPLOAD // MB)


def _take_in_part(page: Page, data: Data, place: str, cut: str = "") -> Updates:
    """Put what there is of a picture that is cut where somebody wanted it."""
    path = read_in_part(uploaded_path({"path": cut}, page.app.uploads) or "")
    updates: Updates = note_with_undo(page, data, "page.picture_taken")
    if place == page.inputs.start.elem_id:
        return updates | page.with_new_starts([path], data)
    if place == page.inputs.end.elem_id:
        return updates | page.with_random_seed(data) | {page.inputs.end: make_view(path)}
    rows, section = data[page.keyframes.rows], int(place.removeprefix("section-"))
    change_row(rows, section, image=path)
    return updates | {page.keyframes.rows: rows, page.keyframes.plan: data[page.keyframes.plan].refilled()}


def check_pictures(page: Page, data: Data) -> Updates:
    """Put back what was there before an unusable picture, and report that a start image holds settings."""
    updates: Updates = {page.message: messages.NOTHING}
    for place, widget in (("start", page.inputs.start), ("end", page.inputs.end)):
        path, problem = take_picture(page.app, data[widget], page.words(data), widget.elem_id)
        before = kept_paths(page, data, place)
        if problem:
            return {widget: view_of(before[0]) if len(before) == 1 else None, page.message: problem}
        if path is not None:
            updates[widget] = make_view(path)
            if before not in ([], [path]):
                held = text_of(data, page.inputs.kept)  # the picture is not in its place any more
                updates |= note_with_undo(page, data, "page.picture_replaced", SEED, held)
    if page.is_seed_of_other_pictures(data):
        updates |= page.with_random_seed(data)
    start = uploaded_path(data[page.inputs.start], page.app.uploads)
    if start is not None:
        begin_import()
        if start not in kept_paths(page, data, "start"):
            updates[page.inputs.position] = 0.5
    if start is not None and _has_request(start):
        updates |= page.note(data, "page.picture_carries_settings")
    return updates


def restore_single_start(page: Page, data: Data) -> Updates:
    """Show the single start image again where the several ones were taken away."""
    paths = uploaded_paths(data[page.inputs.start_images], page.app.uploads)
    return {} if paths else page.with_starts([])


def check_start_images(page: Page, data: Data) -> Updates:
    """Take unusable ones of several start images out again."""
    good: list[str] = []
    updates: Updates = {page.message: messages.NOTHING}
    for path in uploaded_paths(data[page.inputs.start_images], page.app.uploads):
        try:
            good.append(checked_picture(path))
        except EngineError as error:
            updates = {page.message: messages.problem(error, page.words(data))}
    return updates | page.with_new_starts(good, data)


def open_files(page: Page, data: Data) -> Updates:
    """Take whatever was dropped or opened: a video or picture with settings, a picture, or several."""
    paths = uploaded_paths(data[page.inputs.dropped_files], page.app.uploads)
    if len(paths) == 1 and (is_video(paths[0]) or _has_request(paths[0])):
        return _restore_file(page, paths[0], data)
    if any(is_video(path) for path in paths):
        for path in filter(is_video, paths):
            delete_upload(path)
        raise InputError("video_among_pictures")
    if len(paths) == 1:
        words, start = page.words(data), page.inputs.start.elem_id
        single, problem = take_picture(page.app, {"path": paths[0]}, words, start)
        if single is None:
            return {page.message: problem}
        said = note_with_undo(page, data, "page.picture_replaced") if page.pictures(data).start else {}
        return {page.message: messages.NOTHING} | said | page.with_new_starts([single], data)
    pictures = [checked_picture(path) for path in paths]
    if not pictures:
        return {}
    said = note_with_undo(page, data, "page.several_chosen", count=len(pictures))
    return said | page.with_new_starts(pictures, data)


def _has_request(path: str) -> bool:
    try:
        embedded_request(path)
    except InputError:
        return False
    return True


def _restore_file(page: Page, path: str, data: Data) -> Updates:
    """Restore the settings of a video or picture; one without any does not stay."""
    try:
        return restore_request(page, embedded_request(path), data)
    except EngineError:
        delete_upload(path)
        raise


def clear_hidden_settings(page: Page, data: Data) -> Updates:
    """Drop the settings that no field shows, with an undo."""
    return show_hidden(page, {}, page.words(data)) | note_with_undo(page, data, "page.extras_removed")

"""Handlers of the form: estimate what it makes, check pictures, bring a request back, and open the page."""

import dataclasses
from functools import partial
from typing import Any

import gradio as gr

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.request import GenerationRequest

from ..form import (
    DEFAULTS,
    FIELDS,
    HIDDEN_SETTINGS,
    UNKNOWN_PICTURE,
    copies_pictures,
    count_rows,
    from_request,
    to_requests,
)
from ..text.translations import Translator
from ..uploads.cleanup import delete_upload
from ..uploads.files import (
    MAX_UPLOAD,
    MB,
    check_embedded_pictures,
    checked_picture,
    embedded_request,
    is_video,
    uploaded_path,
    uploaded_paths,
)
from . import messages
from .estimate import estimate
from .parts.keyframe_rows import RowPlan, take_picture
from .preset_handlers import show_preset
from .widgets import Data, Page, Updates


def wire_inputs(page: Page) -> None:
    inputs, options = page.inputs, page.options
    pictures = [inputs.start, inputs.start_images, inputs.end]
    watched = [*page.fields.values(), options.output_folder, *pictures, page.hidden_settings, page.language]
    changes = partial(gr.on, [widget.change for widget in watched])
    shown = [inputs.estimate, page.message, page.keyframes.plan, *page.switched(DEFAULTS)]
    page.on(changes, refresh_form, shown, trigger_mode="always_last")
    uploads, answers = partial(gr.on, [inputs.start.upload, inputs.end.upload]), [*pictures, page.message]
    page.on(uploads, check_pictures, answers)
    page.on(inputs.start_images.change, restore_single_start, answers)
    page.on(inputs.refresh_estimate.click, refresh_estimate, [inputs.estimate])
    page.on(inputs.too_large.click, refuse_large_upload, [page.message])
    page.on(inputs.dropped_files.upload, open_files, page.restored_widgets, inputs.dropped_files)
    page.on(options.clear_hidden.click, clear_hidden_settings, page.restored_widgets)
    page.on(options.sound.change, remember_sound, [page.message], options.sound)


# -- what comes out of the form ----------------------------------------------------------------------


def refresh_form(page: Page, data: Data) -> Updates:
    """Remember the fields, estimate the video, and show the fields that belong to the switches."""
    app, values = page.app, page.values(data)
    app.remember(**values)
    if app.options.output is None:
        app.remember(output_folder=data[page.options.output_folder])
    return {
        page.inputs.estimate: _estimate_html(page, data),
        page.keyframes.plan: _plan_rows(page, data),
        **page.switched(values),
    }


def refresh_estimate(page: Page, data: Data) -> Updates:
    """Estimate anew after a job, which shows how long the next one takes, and with other models."""
    return {page.inputs.estimate: _estimate_html(page, data)}


def _plan_rows(page: Page, data: Data) -> RowPlan:
    values, old = page.values(data), data[page.keyframes.plan]
    count = count_rows(values) if values["use_keyframes"] else 0
    section_seconds = 0.5 if values["section_seconds"] == 0.5 else 1.0
    return RowPlan(count, section_seconds, copies_pictures(values), page.words(data).language, old.drawn)


def _estimate_html(page: Page, data: Data) -> str:
    words = page.words(data)
    try:
        page.output_folder(data)
        requests = _requests_so_far(page, data)
        speed = page.app.speed.speeds.get(page.app.settings.load()["machine"])
        return messages.plain(estimate(requests, speed, words))
    except EngineError as error:
        return messages.hint(error, words)


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


def refuse_large_upload(page: Page, data: Data) -> Updates:
    """Report that files are too large, which the page's script has not sent for that reason."""
    return page.note(data, "page.upload_too_large", megabytes=MAX_UPLOAD // MB)


def check_pictures(page: Page, data: Data) -> Updates:
    """Take unusable start and end images out again, and report that the start image holds settings."""
    updates: Updates = {page.message: messages.NOTHING}
    for widget in (page.inputs.start, page.inputs.end):
        shown, problem = take_picture(page.app, data[widget], page.words(data))
        if problem:
            return {widget: None, page.message: problem}
        if shown is not None and shown != uploaded_path(data[widget], page.app.uploads):
            updates[widget] = shown
    start = uploaded_path(data[page.inputs.start], page.app.uploads)
    if start is not None and _has_request(start):
        updates |= page.note(data, "page.picture_carries_settings")
    return updates


def restore_single_start(page: Page, data: Data) -> Updates:
    """Show the single start image again where the several ones were taken away."""
    paths = uploaded_paths(data[page.inputs.start_images], page.app.uploads)
    return {} if paths else page.with_starts([])


def open_files(page: Page, data: Data) -> Updates:
    """Take whatever was dropped or opened: a video or picture with settings, a picture, or several."""
    paths = uploaded_paths(data[page.inputs.dropped_files], page.app.uploads)
    if len(paths) == 1 and (is_video(paths[0]) or _has_request(paths[0])):
        return _restore_file(page, paths[0], data)
    if any(is_video(path) for path in paths):
        for path in filter(is_video, paths):
            delete_upload(path)
        raise InputError("video_among_pictures")
    shown = [checked_picture(path) for path in paths]
    if not shown:
        return {}
    note = page.note(data, "page.several_chosen", count=len(shown)) if len(shown) > 1 else {}
    return {page.message: messages.NOTHING} | note | page.with_starts(shown)


def _has_request(path: str) -> bool:
    try:
        embedded_request(path)
    except InputError:
        return False
    return True


# -- a request that comes back -----------------------------------------------------------------------


def _restore_file(page: Page, path: str, data: Data) -> Updates:
    """Restore the settings of a video or picture; one without any does not stay."""
    try:
        return restore_request(page, embedded_request(path), data)
    except EngineError:
        delete_upload(path)
        raise


def restore_request(page: Page, request: GenerationRequest, data: Data) -> Updates:
    """Fill the form with a request, its pictures and its hidden settings."""
    keyframes = page.keyframes
    check_embedded_pictures(request)
    values, pictures, hidden = from_request(request, page.app.uploads / "restored")
    return {
        **page.filled(values),
        **page.with_starts(pictures.start),
        page.inputs.end: pictures.end,
        keyframes.rows: dict(pictures.rows),
        keyframes.plan: data[keyframes.plan].redrawn(),
        **page.note(data, "page.restored"),
        **_show_hidden(page, hidden, page.words(data)),
    }


def _show_hidden(page: Page, settings: dict[str, Any], words: Translator) -> Updates:
    options = page.options
    shown = [key for key in HIDDEN_SETTINGS if key in settings]
    lines = [words("page.extra", name=words(f"field.{key}"), value=settings[key]) for key in shown]
    text = messages.note(words("page.extras", list=" / ".join(lines))) if lines else ""
    return {
        page.hidden_settings: settings,
        options.hidden_note: gr.update(value=text, visible=bool(lines)),
        options.clear_hidden: gr.update(visible=bool(lines)),
    }


def clear_hidden_settings(page: Page, data: Data) -> Updates:
    """Drop the settings that no field shows."""
    return _show_hidden(page, {}, page.words(data))


# -- the page itself ---------------------------------------------------------------------------------


def remember_sound(page: Page, data: Data) -> Updates:
    page.app.remember(sound=bool(data[page.options.sound]))
    return {}


def restore_settings(page: Page) -> Updates:
    """Fill in the settings on a page that was just opened."""
    app, options, known = page.app, page.options, page.app.settings.load()
    updates = page.filled({key: known[key] for key in FIELDS})
    updates[options.sound] = gr.update(value=known["sound"])
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
        note: _show_hidden(page, data[page.hidden_settings], words)[note],
        page.message: messages.NOTHING,
    }

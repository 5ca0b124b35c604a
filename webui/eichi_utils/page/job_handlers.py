"""Handlers of jobs and results: start, stop, make again, continue, take settings, open the folder."""

import secrets
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.public import load_request
from diffusers_helper.request import GenerationRequest, is_data_uri

from ..form import OWN_CHOICES, SEED, to_requests
from ..output import try_folder
from ..support.once import write_once
from ..uploads.continued import save_last_frame
from . import messages
from .restoring import note_with_undo, restore_request, take_back, undo_of
from .routes import SAMPLE
from .state import start_key
from .widgets import NOT_EDITED, Data, Edited, Handler, Page, Updates

RELEASE = "release"
"""The word by which the page's script asks for a job that is being edited to wait again."""
SAMPLE_PROMPT = "The camera pans left."
SHOWN_JOB = "() => ichi.shownJob()"
EDITED_JOB = "() => ichi.editedJob()"


def wire_jobs(page: Page) -> None:
    result, message = page.result, [page.message]

    def click(button: Any, act: Handler, job: Any, outputs: list[Any], job_script: str) -> Any:
        """The page's script names the job that a button acts on, then the handler acts."""
        return page.on(button.click(None, None, job, js=job_script).then, act, outputs, job)

    told = [page.message, page.edited, *(page.fields[name] for name in SEED)]
    started = page.on(page.inputs.start_button.click, start_jobs, told)
    sampled = page.on(result.sample.click, take_sample, page.restored_widgets)
    page.on(sampled.then, start_sample, told)
    repeated = click(result.again, make_again, result.shown, message, SHOWN_JOB)
    for queued in (started, repeated):  # until then, further clicks belong to a double click
        queued.then(None, None, None, js="() => { ichi.answered(); return []; }")
    click(result.proceed, continue_from_video, result.shown, page.restored_widgets, SHOWN_JOB)
    click(result.take_settings, take_settings, result.shown, page.restored_widgets, SHOWN_JOB)
    click(result.edit, edit_job, result.shown, page.restored_widgets, EDITED_JOB)


def start_jobs(page: Page, data: Data) -> Updates:
    """Queue a job for each start image; the first takes the place of the job that is being edited."""
    queue, values = page.app.queue, page.requested(data)
    requests = to_requests(values, page.pictures(data), data[page.hidden_settings])
    folder = _tried_folder(page, data)
    waits = queue.view().running is not None
    ids = _add_all(page, requests, folder, page.eight_bit(data))
    queue.supersede(data[page.edited].job, ids[0])
    job = queue.find(ids[-1])
    waiting = len(queue.view().waiting)
    updates: Updates = {page.message: messages.NOTHING, page.edited: NOT_EDITED}
    if waits and waiting:
        updates |= page.note(data, "page.queued", count=waiting)
    if job and values["random_seed"]:
        updates |= {page.fields["random_seed"]: True, page.fields["seed"]: (seed := str(job.request.seed))}
        page.app.remember(seed=seed)
    return updates


def take_sample(page: Page, data: Data) -> Updates:
    """Fill the form with the sample of an empty stage, with an undo where there was another prompt."""
    path = page.app.uploads / "sample" / SAMPLE.name
    _copy(SAMPLE, path)
    note: Updates = {page.message: messages.NOTHING}
    if page.values(data)["prompt"].strip() not in ("", SAMPLE_PROMPT):
        note = note_with_undo(page, data, "page.sample_used", ["prompt"])
    page.app.remember(prompt=SAMPLE_PROMPT)
    return page.with_starts([str(path)]) | {page.fields["prompt"]: SAMPLE_PROMPT} | note


def start_sample(page: Page, data: Data) -> Updates:
    """Queue a job for the sample; the undo of its prompt stands on."""
    updates = start_jobs(page, data)
    if updates[page.message] == messages.NOTHING:
        del updates[page.message]
    return updates


def _add_all(page: Page, requests: list[GenerationRequest], folder: Path, eight_bit: bool) -> list[str]:
    """Queue all of them or, where one cannot be queued, none."""
    ids: list[str] = []
    try:
        for request in requests:
            ids.append(page.app.queue.add(request, folder, eight_bit))
    except EngineError:
        for job in ids:
            page.app.queue.remove(job)
        raise
    return ids


def make_again(page: Page, data: Data) -> Updates:
    """Queue the shown video once more, with another seed."""
    own = {name: page.values(data)[name] for name in OWN_CHOICES}
    request = replace(load_request(_shown_video(page, data)), seed=None, **own)
    page.app.queue.add(request, _tried_folder(page, data), page.eight_bit(data))
    return page.note(data, "page.again_queued")


def continue_from_video(page: Page, data: Data) -> Updates:
    """Put the shown video's last frame in place of the start image."""
    path = save_last_frame(_shown_video(page, data), page.app.uploads)
    note = note_with_undo(page, data, "page.continued")
    return note | page.with_new_starts([path], data) | {page.inputs.end: None}


def take_settings(page: Page, data: Data) -> Updates:
    """Fill the form with the settings of the shown video."""
    return restore_request(page, load_request(_shown_video(page, data)), data)


def edit_job(page: Page, data: Data) -> Updates:
    """Hold a waiting job, and fill the form with its request and copies of its pictures."""
    queue, words = page.app.queue, page.words(data)
    job = queue.find(str(data[page.result.shown] or ""))
    if job is None or not queue.hold(job.id):
        return page.note(data, "live.job_begun")
    edited = Edited(job.id, data[page.edited].before or undo_of(page, data))
    undo = words("live.release"), edited.before
    said = messages.note(words("live.editing", button=words(start_key(queue.view()))), undo)
    try:
        request = job.request.map_images(partial(_copy_picture, folder=page.app.uploads / "restored"))
        request = replace(request, seed=None if job.spec.random_seed else request.seed)
        restored = restore_request(page, request, data, edited)
    except BaseException:
        queue.release(job.id)
        raise
    return restored | {page.message: said}


def stop_editing(page: Page, data: Data, job_id: str) -> Updates:
    """Let a held job wait again; the form that edits it holds what it held before."""
    edited = data[page.edited]
    if edited.job == job_id:
        return take_back(page, data, edited.before.partition(":")[2])
    page.app.queue.release(job_id)
    return {page.message: messages.NOTHING}


def _tried_folder(page: Page, data: Data) -> Path:
    """The folder for videos, tried before anything is made for it."""
    folder = page.output_folder(data)
    try_folder(folder)
    return folder


def _copy_picture(image: str, folder: Path) -> str:
    """Copy a job's own picture, which goes with the job; one in a `data:` URI stays as it is."""
    if is_data_uri(image):
        return image
    copy = folder / f"{secrets.token_hex(8)}{Path(image).suffix}"
    _copy(Path(image), copy)
    return str(copy)


def _copy(source: Path, target: Path) -> None:
    write_once(target, lambda part: shutil.copyfile(source, part))


def _shown_video(page: Page, data: Data) -> Path:
    shown = str(data[page.result.shown] or "")
    if (recent := page.app.recent.find(shown)) is not None:
        return recent.path
    job = page.app.queue.find(shown)
    if job is None or job.state != "done" or job.video is None:
        raise InputError("no_result")
    return job.video

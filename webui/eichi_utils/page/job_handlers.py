"""Handlers of jobs and results: start, stop, make again, continue, take settings, open the folder."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.public import atomic_write, load_request, read_last_frame
from diffusers_helper.request import GenerationRequest

from ..form import to_requests
from ..output import open_in_file_manager
from . import messages
from .handlers import restore_request
from .widgets import Data, Handler, Page, Updates

SHOWN_JOB = "() => ichi.shownJob()"
RUNNING_JOB = "() => ichi.runningJob()"


def wire_jobs(page: Page) -> None:
    result, message = page.result, [page.message]

    def click(button: Any, act: Handler, job: Any, outputs: list[Any], job_script: str) -> None:
        """The page's script names the job that a button acts on, then the handler acts."""
        page.on(button.click(None, None, job, js=job_script).then, act, outputs, job)

    page.on(page.inputs.start_button.click, start_jobs, [page.message, page.fields["seed"]])
    click(page.inputs.stop_button, stop_job, result.running, message, RUNNING_JOB)
    click(result.again, make_again, result.shown, message, SHOWN_JOB)
    click(result.proceed, continue_from_video, result.shown, page.restored_widgets, SHOWN_JOB)
    click(result.take_settings, take_settings, result.shown, page.restored_widgets, SHOWN_JOB)
    page.on(page.options.open_folder.click, open_folder, message)


def start_jobs(page: Page, data: Data) -> Updates:
    """Queue a job for each start image."""
    queue, values, folder = page.app.queue, page.requested(data), page.output_folder(data)
    requests = to_requests(values, page.pictures(data), data[page.hidden_settings])
    waits = queue.view().running is not None
    job = queue.find(_add_all(page, requests, folder)[-1])
    waiting = len(queue.view().waiting)
    updates: Updates = {page.message: messages.NOTHING}
    if waits and waiting:
        updates = page.note(data, "page.queued", count=waiting)
    if job and values["random_seed"]:
        updates[page.fields["seed"]] = str(job.request.seed)
    return updates


def _add_all(page: Page, requests: list[GenerationRequest], folder: Path) -> list[str]:
    """Queue all of them or, where one cannot be queued, none."""
    ids: list[str] = []
    try:
        for request in requests:
            ids.append(page.app.queue.add(request, folder))
    except EngineError:
        for job in ids:
            page.app.queue.remove(job)
        raise
    return ids


def stop_job(page: Page, data: Data) -> Updates:
    page.app.queue.stop(str(data[page.result.running] or ""))
    return {}


def make_again(page: Page, data: Data) -> Updates:
    """Queue the shown video once more, with another seed."""
    request = replace(load_request(_shown_video(page, data)), seed=None)
    page.app.queue.add(request, page.output_folder(data))
    return page.note(data, "page.again_queued")


def continue_from_video(page: Page, data: Data) -> Updates:
    """Put the shown video's last frame in place of the start image."""
    frame = read_last_frame(_shown_video(page, data))
    path = page.app.uploads / "continued" / f"{secrets.token_hex(8)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, flush=False) as part:
        Image.fromarray(frame).save(part, "PNG")
    note = page.note(data, "page.continued")
    return note | page.with_starts([str(path)]) | {page.inputs.end: None}


def take_settings(page: Page, data: Data) -> Updates:
    """Fill the form with the settings of the shown video."""
    return restore_request(page, load_request(_shown_video(page, data)), data)


def _shown_video(page: Page, data: Data) -> Path:
    job = page.app.queue.find(str(data[page.result.shown] or ""))
    if job is None or job.state != "done" or job.video is None:
        raise InputError("no_result")
    return job.video


def open_folder(page: Page, data: Data) -> Updates:
    folder = page.output_folder(data)
    if open_in_file_manager(folder):
        return {page.message: messages.NOTHING}
    return page.note(data, "page.folder_is", path=folder)

"""Named endpoints for programs (`gradio_client`): make a video, see the queue, stop."""

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.request import GenerationRequest

from ..app import AppState
from ..engine_options import DEMO_RESOLUTION
from ..jobs.job import Job
from ..output import DEFAULT_OUTPUT
from ..text.error_text import error_text
from ..uploads.files import delete_refused, uploaded_path

POLL_SECONDS = 0.1


def add_api(app: AppState) -> None:
    """Add the endpoints to the page that is being built."""
    words, engine = app.translator("en"), app.options.engine

    async def generate(
        start_image: FileData,
        prompt: str = "",
        seconds: float = 1,
        end_image: FileData | None = None,
        settings: dict | None = None,
    ) -> FileData:
        """Make a video and wait for it. `settings` holds further keys of a request (docs/request.md)."""
        try:
            pictures = {"start_image": start_image, "end_image": end_image}
            paths = {key: uploaded_path(file, app.uploads) for key, file in pictures.items()}
            own: dict[str, object] = {"prompt": prompt, "seconds": seconds, **paths}
            request = _request(settings, own, {"resolution": DEMO_RESOLUTION} if engine.uses_demo else {})
            folder, eight_bit = app.output_folder(DEFAULT_OUTPUT), app.settings.load()["eight_bit"]
            job_id = await asyncio.to_thread(app.queue.add, request, folder, eight_bit)
        except EngineError as caught:
            error = delete_refused(caught, app.uploads)
            raise gr.Error(error_text(error, words), print_exception=False) from caught
        job = await _ended(app, job_id)
        if job is None or job.state != "done" or job.video is None:
            text = error_text(job.failure, words) if job and job.failure else words("page.job_gone")
            raise gr.Error(text, print_exception=False)
        return FileData(path=str(_copy_for_client(job.video, app.uploads)))

    def queue() -> list[dict[str, Any]]:
        """The running job, those that wait, those that are not finished, and those that ended."""
        return [_summary(job) for job in app.queue.view().jobs]

    def stop(job: str) -> bool:
        """Stop the running job or remove a waiting one; returns whether there was one of that id."""
        return app.queue.stop(str(job)) or app.queue.remove(str(job))  # a program may send anything

    def finish(job: str, short: bool = False) -> bool:
        """Resume an unfinished job; short leaves out the sections between its end and its beginning."""
        return app.queue.finish(str(job), short)

    def discard(job: str) -> bool:
        """Delete an unfinished job; returns whether there was one of that id."""
        return app.queue.discard(str(job))

    for endpoint in (generate, queue, stop, finish, discard):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=None)


async def _ended(app: AppState, job_id: str) -> Job | None:
    """Wait until the job is over; None if somebody removed it before it began."""
    while (job := app.queue.find(job_id)) is not None and job.state in ("waiting", "running"):
        await asyncio.sleep(POLL_SECONDS)
    return job


def _request(settings: object, own: dict[str, object], defaults: dict[str, object]) -> GenerationRequest:
    """Return a request whose pictures are uploads, never files of this computer named by the caller.

    Args:
        own: the values of the other arguments, which the `settings` must not repeat.
        defaults: used where the settings name nothing else.
    """
    further = {} if settings is None else settings
    if not isinstance(further, dict):
        raise InputError("request_not_an_object", value=type(further).__name__)
    for key in own.keys() & further.keys():
        raise InputError("unknown_key", field=f"settings.{key}", nearest=key)
    request = GenerationRequest.from_dict({**defaults, **further, **own})
    if request.previous_video is not None or any(frame.image is not None for frame in request.keyframes):
        raise InputError("no_paths_from_clients")
    return request


def _summary(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "fraction": round(job.progress.fraction, 3),
        "sections_done": job.progress.sections_done,
        "can_finish": job.can_finish,
        "seconds_left": job.progress.seconds_left,
        "video": str(job.video).encode("utf-8", "backslashreplace").decode() if job.video else None,
    }


def _copy_for_client(video: Path, folder: Path) -> Path:
    """Return a hard link of the video, or a copy where the disk has no links, below the folder."""
    target = folder / secrets.token_hex(8) / video.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(video)
    except OSError:
        shutil.copyfile(video, target)
    return target

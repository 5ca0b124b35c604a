"""The state of the jobs and the preflight that a page shows: plain values, in its language, for `page.js`."""

import contextlib
from typing import Any

from diffusers_helper.errors import MachineError
from diffusers_helper.sections import FPS, kept_frames

from ..download.download import DownloadView
from ..download.model_folders import free_bytes, gigabytes
from ..jobs.job import Job
from ..jobs.queue import QueueView
from ..machine.check import line_text, worst_level
from ..machine.rules import MODEL_BYTES, CheckLine
from ..preflight import PreflightView
from ..text.durations import format_duration
from ..text.error_text import error_text, reason_text
from ..text.translations import Translator

WORDS = (
    *("setup.download", "live.title", "live.empty", "live.download", "live.lost", "live.copy_details"),
    *("live.copied", "live.close", "live.progress", "live.preview", "live.queue", "live.show", "live.up"),
    *("live.remove", "live.unfinished", "live.finish", "live.short", "live.short_info", "live.discard"),
    *("live.discard_sure", "live.choose_file", "live.paste_picture", "live.take_away"),
)
"""The words that never change while a page is open."""
SHOWN_PROMPT = 120
MODEL_GB = round(MODEL_BYTES / 1e9)
"""Decimal gigabytes of the whole set of models, for sentences."""


def page_state(
    view: QueueView, preflight: PreflightView, words: Translator, *, server: str, sound: bool
) -> dict[str, Any]:
    """Return everything that a page shows of jobs and the preflight.

    Args:
        server: a name of this run of the app, so that a page notices when it was started anew.
        sound: whether the page should sound when a job ends.
    """
    running = view.running
    ended = sorted((*view.unfinished, *view.ended), key=lambda job: job.ended, reverse=True)
    newest = next((job for job in ended if job.state != "interrupted"), None)
    failed = next((job for job in ended if job.failure), None)  # stays until a page closes it
    with_video = [job for job in (running, *ended) if job is not None and job.video is not None]
    return {
        "server": server,
        "version": view.version,
        "title": words("live.page_title_running", percent=round(running.progress.fraction * 100))
        if running
        else words("live.page_title"),
        "sound": sound,
        "words": {key: words(key) for key in WORDS},
        "setup": _preflight(preflight, words),
        "job": running and _job(running, words),
        "results": [_result(job, words) for job in with_video],  # the first one is shown
        "failure": failed and _failure(failed, words),
        "ended": newest and _ended(newest, words),
        "unfinished": [_unfinished(job, words) for job in view.unfinished],
        "queue": _queue(view, words),
    }


def _job(job: Job, words: Translator) -> dict[str, Any]:
    progress, prompt = job.progress, _shortened(job.request.prompt)
    left = None if job.stopping else progress.seconds_left
    return {
        "id": job.id,
        "label": words("live.job_with_prompt", name=job.name, prompt=prompt) if prompt else job.name,
        "status": _status(job, words),
        "left": "" if left is None else words("live.left", time=format_duration(left, words)),
        "fraction": round(progress.fraction, 4),
        "stopping": job.stopping,
        "has_video": job.video is not None,
        "preview": f"ichi/jobs/{job.id}/preview/{job.preview_number}" if job.preview_number else None,
        "notices": [words(f"notice.{code}", **values) for code, values in job.notices],
    }


def _status(job: Job, words: Translator) -> str:
    progress = job.progress
    if job.stopping:
        if progress.stage == "eight_bit" and not progress.sections_done:
            return words("live.stopping_eight_bit")
        key = "live.stopping_kept" if progress.sections_done else "live.stopping"
        return words(key, kept=_kept(job, words))
    if progress.stage is None:
        return words("live.starting")
    stage = progress.stage_text(words)
    if progress.stage_fraction is not None or progress.stage not in ("sampling", "decoding"):
        return stage
    section = words("live.section", number=progress.section + 1, sections=progress.sections)
    if progress.stage == "decoding" or not progress.step:
        return words("live.status", section=section, stage=stage)
    step = words("live.step", step=progress.step, steps=progress.steps)
    return words("live.status", section=section, stage=step)


def _result(job: Job, words: Translator) -> dict[str, Any]:
    assert job.video is not None
    return {
        "id": job.id,
        "complete": job.state == "done",
        "file": job.video.name,
        # with the state, because the finished video has as many frames as the last one so far
        "video": f"ichi/jobs/{job.id}/video/{job.frames}.mp4?{job.state}",
        "caption": _caption(job, words),
    }


def _caption(job: Job, words: Translator) -> str:
    seconds = f"{job.frames / FPS:.1f}"
    if job.state == "running":
        return words("live.caption_so_far", name=job.name, seconds=seconds)
    if job.state != "done":
        return words("live.caption_kept", name=job.name, seconds=seconds)
    return words(
        "live.caption_done",
        name=job.name,
        frames=job.frames,
        seconds=f"{job.frames / FPS:.2f}",
        width=job.progress.width,
        height=job.progress.height,
        seed=job.request.seed,
        elapsed=format_duration(job.elapsed or 0, words),
    )


def _failure(job: Job, words: Translator) -> dict[str, str]:
    assert job.failure is not None
    return {
        "id": job.id,
        "title": words("live.failed", name=job.name),
        "text": error_text(job.failure, words),
        "details": job.failure.details,
    }


def _unfinished(job: Job, words: Translator) -> dict[str, Any]:
    """A job that can go on: what is kept of it, and what can be done."""
    actions = ["finish", *(["short"] if job.can_finish_short else []), "discard"]
    key = "live.unfinished_kept" if job.progress.sections_done else "live.unfinished_nothing"
    return _item(job, words) | {
        "actions": [*(["show"] if job.video is not None else []), *actions],
        "kept": words(key, kept=_kept(job, words)),
    }


def _kept(job: Job, words: Translator) -> str:
    """The finished part of a job, which is always the end of its video."""
    done, sections = job.progress.sections_done, job.progress.sections
    seconds = kept_frames(job.request.section_size, done) / FPS
    return words("live.kept", done=done, sections=sections, seconds=f"{seconds:.1f}")


def _ended(job: Job, words: Translator) -> dict[str, Any]:
    text = words(f"live.ended_{job.state}", name=job.name)
    return {"id": job.id, "good": job.state == "done", "text": text}


def _queue(view: QueueView, words: Translator) -> list[dict[str, Any]]:
    """The running job, those that wait in their order, then those that ended, newest first.

    A single job is not worth a list.
    """
    if len(view.ended) + len(view.waiting) + (view.running is not None) < 2:
        return []
    running = [_item(view.running, words)] if view.running else []
    waiting = [_item(job, words, is_first=index == 0) for index, job in enumerate(view.waiting)]
    return [*running, *waiting, *(_item(job, words) for job in view.ended)]


def _item(job: Job, words: Translator, is_first: bool = True) -> dict[str, Any]:
    actions = []
    if job.state == "waiting":
        actions = ["remove"] if is_first else ["up", "remove"]
    elif job.state != "running" and job.video is not None:
        actions = ["show"]
    return {
        "id": job.id,
        "state": job.state,
        "state_text": words(f"live.state_{job.state}"),
        "name": job.name,
        "prompt": _shortened(job.request.prompt) or words("live.no_prompt"),
        "thumbnail": f"ichi/jobs/{job.id}/thumbnail" if job.thumbnail else None,
        "actions": actions,
    }


def _shortened(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= SHOWN_PROMPT else line[: SHOWN_PROMPT - 1] + "…"


def _preflight(view: PreflightView, words: Translator) -> dict[str, Any] | None:
    """The preflight for the page; None where everything is well."""
    lines = [line for line in view.lines or () if line.level != "good"]
    download = _download(view, words)
    if not lines and download is None:
        return None
    count = words("setup.title_check", count=len(lines))
    return {
        "title": words("setup.title_download", size=MODEL_GB) if download else count,
        "open": worst_level(lines) == "fails" or view.download.state != "idle",
        "lines": [_line(line, words) for line in lines],
        "download": download,
    }


def _line(line: CheckLine, words: Translator) -> dict[str, Any]:
    text, advice = line_text(line, words)
    return {"text": text, "advice": advice, "level": line.level, "mark": words(f"check.mark.{line.level}")}


def _download(view: PreflightView, words: Translator) -> dict[str, Any] | None:
    """The download's offer or its progress; None where the models are there, or were not searched yet."""
    download = view.download
    lacks = view.models is not None and view.models.state != "complete"
    if not lacks and not download.is_running:
        return None
    is_begun = download.state != "idle" or (view.models is not None and view.models.state == "partly")
    return {
        "text": _download_offer(view, words),
        "status": _download_status(download, words),
        "fraction": download.done_bytes / download.total_bytes if download.total_bytes else None,
        "action": "cancel" if download.is_running else "start",
        "waits": download.is_stopping,
        "button": words(
            "setup.pause" if download.is_running else "setup.go_on" if is_begun else "setup.download"
        ),
    }


def _download_offer(view: PreflightView, words: Translator) -> str:
    target, free = view.folders.target, "?"
    with contextlib.suppress(MachineError):
        free = gigabytes(free_bytes(target))
    return words("setup.offer", size=MODEL_GB, path=target, free=free)


def _download_status(download: DownloadView, words: Translator) -> str:
    if download.failure is not None:
        return error_text(download.failure, words)
    if download.is_stopping:
        return words("setup.pausing")
    if download.state in ("asking", "checking"):
        return words(f"setup.{download.state}", file=download.file or "")
    if download.state == "waiting":
        return words("download.waiting", reason=reason_text(download.last_error or "", words))
    if download.state in ("idle", "done"):
        return ""
    done, total = gigabytes(download.done_bytes), gigabytes(download.total_bytes)
    if download.speed is None or download.seconds_left is None:
        return words("setup.amount", done=done, total=total)
    time = format_duration(download.seconds_left, words)
    return words("setup.fetching", done=done, total=total, speed=f"{download.speed / 1e6:.1f}", time=time)

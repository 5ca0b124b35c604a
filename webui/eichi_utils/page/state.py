"""The state of the jobs and the preflight that a page shows: plain values, in its language, for `page.js`."""

import contextlib
from typing import Any

from diffusers_helper.errors import MachineError
from diffusers_helper.sections import FPS, kept_frames

from ..download.download import DownloadView
from ..download.licences import licence_lines
from ..download.model_folders import free_bytes, gigabytes
from ..jobs.eta import Speed
from ..jobs.forecast import seconds_left
from ..jobs.job import Job
from ..jobs.view import QueueView
from ..machine.check import line_text, worst_level
from ..machine.rules import MODEL_BYTES, OUTDATED, CheckLine
from ..preflight import PreflightView
from ..recent_videos import RecentVideo
from ..support.failures import Failure
from ..text.durations import format_duration
from ..text.error_text import error_text, reason_text
from ..text.translations import Translator
from .strip import SHOWN_PROMPT, strip_state

WORDS = (
    *("setup.download", "live.title", "live.empty", "live.download", "live.lost", "live.copy_details"),
    *("live.copied", "live.close", "live.progress", "live.preview", "live.queue", "live.show", "live.up"),
    *("live.remove", "live.unfinished", "live.finish", "live.short", "live.short_info", "live.discard"),
    *("live.discard_sure", "live.choose_file", "live.paste_picture", "live.take_away", "live.sending"),
    *("live.clear", "live.edit", "live.release", "page.language", "page.not_sent"),
    *("live.english", "live.phrase_in", "live.phrase_pan", "live.phrase_turn", "live.phrase_wind"),
    *("live.invitation", "live.sample", "live.crop", "live.frame", "live.so_far", "live.back"),
)
"""The words that never change while a page is open."""
TOPICS = {
    **dict.fromkeys(("card", "no", "vram", "driver"), "gpu"),
    **dict.fromkeys(("ram", "page"), "memory"),
    **dict.fromkeys(("triton", "attention"), "speed"),
    **dict.fromkeys(("models", "eight"), "models"),
    "output": "output",
    "python": "python",
    "torch": "torch",
}
"""The topics of the check's lines, by the first word of their codes."""
UNJOINED = ("not_joined", "previous_video_gone")
"""The codes of notices that stay beside a finished video."""
MODEL_GB = round(MODEL_BYTES / 1e9)
"""Decimal gigabytes of the whole set of models, for sentences."""


def page_state(
    view: QueueView,
    preflight: PreflightView,
    words: Translator,
    *,
    server: str,
    sound: bool,
    trouble: Failure | None = None,
    speed: Speed | None = None,
    recent: tuple[RecentVideo, ...] = (),
) -> dict[str, Any]:
    """Return everything that a page shows of jobs and the preflight.

    Args:
        server: a name of this run of the app, so that a page notices when it was started anew.
        sound: whether the page should sound when a job ends.
        speed: of this machine, in an earlier job.
        trouble: what keeps the whole app from going on, which is shown in place of a job's failure.
        recent: the newest videos in the output folder.
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
        "start": words(start_key(view)),
        "stop": words("live.keep_going" if running and running.stopping else "page.stop"),
        "can_stop": running is not None and _can_stop(running, view),
        "job": running and _job(running, words, not view.can_keep_going),
        "results": [_result(job, words) for job in with_video],  # the first one is shown
        "outcome": _trouble(trouble, words) if trouble else _outcome(failed, newest, view, words),
        "ended": newest and _ended(newest, words),
        "unfinished": [_unfinished(job, words) for job in view.unfinished],
        "queue": _queue(view, words),
        "waiting": _waiting(view, speed, words),
        "recent": strip_state(recent, words),
    }


def start_key(view: QueueView) -> str:
    """Return the key of the words on the button that starts a job, or adds it to the others."""
    return "page.start_queue" if view.running or view.waiting else "page.start"


def _job(job: Job, words: Translator, is_noticed: bool) -> dict[str, Any]:
    progress, prompt = job.progress, _shortened(job.request.prompt)
    left, status = None if job.stopping else progress.seconds_left, _status(job, words, is_noticed)
    return {
        "id": job.id,
        "label": words("live.job_with_prompt", name=job.name, prompt=prompt) if prompt else job.name,
        "status": status[:1].upper() + status[1:],
        "left": "" if left is None else words("live.left", time=format_duration(left, words)),
        "fraction": round(progress.fraction, 4),
        "stopping": job.stopping,
        "has_video": job.video is not None,
        "preview": f"ichi/jobs/{job.id}/preview/{job.preview_number}" if job.preview_number else None,
        "thumbnail": f"ichi/jobs/{job.id}/thumbnail" if job.thumbnail else None,
        "notices": [words(f"notice.{code}", **values) for code, values in job.notices],
    }


def _can_stop(running: Job, view: QueueView) -> bool:
    """Return whether the job can still be stopped or, where it was asked to stop, keep going."""
    return view.can_keep_going if running.stopping else not running.progress.is_finishing


def _status(job: Job, words: Translator, is_noticed: bool) -> str:
    """Return what is going on, or what a stop will keep; one that was noticed acts before the next step."""
    progress = job.progress
    if job.stopping:
        if progress.stage == "eight_bit" and not progress.sections_done:
            return words("live.stopping_eight_bit")
        if progress.steps_kept or (_is_last_step(job) and not is_noticed):
            key = "live.stopping_decoding_kept" if progress.sections_done else "live.stopping_decoding"
            return words(key, kept=_kept(job, words))
        if progress.is_finishing:
            return words("live.stopping_saving")
        key = "live.stopping" if progress.stage in ("sampling", "saving") else "live.stopping_preparing"
        key += "_kept" if progress.sections_done else ""
        return words(key, kept=_kept(job, words))
    if progress.stage is None:
        return words("live.starting")
    stage = progress.stage_text(words)
    if progress.stage not in ("sampling", "decoding"):
        return stage
    section = words("live.section", number=progress.section + 1, sections=progress.sections)
    if progress.stage == "decoding" or not progress.step:
        return words("live.status", section=section, stage=stage)
    step = words("live.step", step=progress.step, steps=progress.steps)
    return words("live.status", section=section, stage=step)


def _is_last_step(job: Job) -> bool:
    """Return whether a section's last step is under way: a stop comes after it, and all steps are kept."""
    return job.progress.stage == "sampling" and job.progress.step >= job.request.steps - 1


def _result(job: Job, words: Translator) -> dict[str, Any]:
    assert job.video is not None
    return {
        "id": job.id,
        "complete": job.state == "done",
        "has_settings": job.request.embed_request,
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
    caption = words(
        "live.caption_done",
        name=job.video.stem if job.video else job.name,
        frames=job.frames,
        seconds=f"{job.frames / FPS:.2f}",
        width=job.progress.width,
        height=job.progress.height,
        seed=job.request.seed,
        elapsed=format_duration(job.elapsed or 0, words),
    )
    stay = [words(f"notice.{code}", **values) for code, values in job.notices if code in UNJOINED]
    return "\n".join([caption, *stay])


def _outcome(
    failed: Job | None, newest: Job | None, view: QueueView, words: Translator
) -> dict[str, Any] | None:
    """The end of the job that failed last, else of one that was stopped just now; None: all is well."""
    was_stopped = newest is not None and newest.state == "stopped" and view.running is None
    job = failed or (newest if was_stopped else None)
    if job is None:
        return None
    can_finish = any(job.id == other.id for other in view.unfinished)
    is_kept = bool(job.progress.sections_done or job.progress.steps_kept)
    lines = [error_text(job.failure, words)] if job.failure else []
    if can_finish or not job.failure:
        lines.append(_left_of(job, words))
    return {
        "id": job.id,
        "failed": job.failure is not None,
        "title": words(f"live.ended_{job.state}", name=job.name),
        "text": "\n".join(lines),
        "details": job.failure.details if job.failure else "",
        "can_finish": can_finish,
        "finish": words("live.finish" if is_kept else "live.retry"),
    }


def _trouble(trouble: Failure, words: Translator) -> dict[str, Any]:
    text = error_text(trouble, words)
    named = {"id": trouble.code, "title": words("live.trouble"), "text": text, "details": trouble.details}
    return named | {"failed": True, "stays": True, "can_finish": False, "finish": ""}


def _unfinished(job: Job, words: Translator) -> dict[str, Any]:
    """A job that can go on: what is kept of it, and what can be done."""
    actions = ["finish", *(["short"] if job.can_finish_short else []), "discard"]
    return _item(job, words) | {
        "actions": [*(["show"] if job.video is not None else []), *actions],
        "kept": _left_of(job, words),
    }


def _left_of(job: Job, words: Translator) -> str:
    """Return the lines that tell what is kept of a job that can go on."""
    progress, lines = job.progress, []
    if progress.sections_done:
        lines.append(words("live.unfinished_kept", kept=_kept(job, words)))
    if progress.steps_kept:
        lines.append(words("live.unfinished_steps", number=progress.sections_done + 1))
    return "\n".join(lines) or words("live.unfinished_nothing")


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

    A job that is done is listed as long as its video is there.
    """
    running = [_item(view.running, words)] if view.running else []
    waiting = [_item(job, words, is_first=index == 0) for index, job in enumerate(view.waiting)]
    ended = (job for job in view.ended if job.state != "done" or job.video is not None)
    return [*running, *waiting, *(_item(job, words) for job in ended)]


def _waiting(view: QueueView, speed: Speed | None, words: Translator) -> str:
    """The number of jobs that wait, and the time that everything takes, where that is known."""
    count, seconds = len(view.waiting), seconds_left(view, speed)
    if not count or seconds is None:
        return words("live.waiting_count", count=count) if count else ""
    return words("live.waiting_time", count=count, time=format_duration(seconds, words))


def _item(job: Job, words: Translator, is_first: bool = True) -> dict[str, Any]:
    actions = []
    if job.state == "waiting":
        can_edit = not job.progress.sections_done  # else what is made would be lost
        change = ["release"] if job.held else ["edit"] if can_edit else []
        actions = [*([] if is_first else ["up"]), *change, "remove"]
    elif job.state != "running" and job.video is not None:
        actions = ["show"]
    return {
        "id": job.id,
        "state": job.state,
        "state_text": words("live.state_held" if job.held else f"live.state_{job.state}"),
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
    topics = dict.fromkeys(words(f"setup.topic_{TOPICS[line.code.partition('_')[0]]}") for line in lines)
    listed = (", " if words.language == "en" else "、").join(topics)
    count = words("setup.title_check", count=len(lines), list=listed)
    return {
        "title": words("setup.title_download", size=_missing_gb(view)) if download else count,
        "open": worst_level(lines) == "fails" or view.download.state != "idle",
        "lines": [_line(line, words) for line in lines],
        "download": download,
    }


def _line(line: CheckLine, words: Translator) -> dict[str, Any]:
    text, advice = line_text(line, words)
    mark, is_deletable = words(f"check.mark.{line.level}"), line.code == OUTDATED
    return {"text": text, "advice": advice, "level": line.level, "mark": mark, "deletable": is_deletable}


def _download(view: PreflightView, words: Translator) -> dict[str, Any] | None:
    """The download's offer or its progress; None where the models are there, or were not searched yet."""
    download = view.download
    lacks = view.models is not None and view.models.state != "complete"
    if not lacks and not download.is_running:
        return None
    is_begun = download.state != "idle" or (view.models is not None and view.models.state == "partly")
    return {
        "text": _download_offer(view, words),
        "licences": {
            "title": words("licence.title"),
            "items": [{"text": text, "address": address} for text, address in licence_lines(words)],
        },
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
    return words("setup.offer", size=_missing_gb(view), path=target, free=free)


def _missing_gb(view: PreflightView) -> int:
    """Decimal gigabytes that are still to come, about."""
    return max(1, MODEL_GB - round(view.models.num_bytes / 1e9)) if view.models else MODEL_GB


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

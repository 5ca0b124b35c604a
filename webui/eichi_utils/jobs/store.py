"""The jobs on the disk: a folder each, with the request, own copies of the pictures, and all that was made.

It survives the app: after a crash, the next start finds every job that has no video yet. Beside them lie the
folders in which unfinished videos of `--headless` wait for the next run of the same name.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.events import Notice
from diffusers_helper.plan import make_plan
from diffusers_helper.public import (
    atomic_write,
    count_frames,
    count_stored_sections,
    disk_errors,
    list_partial_videos,
    read_image,
)
from diffusers_helper.request import GenerationRequest, is_data_uri
from diffusers_helper.sections import kept_frames

from ..output import check_name
from ..support.failures import loggable
from .job import Job, JobSpec, Progress
from .pictures import make_thumbnail

logger = logging.getLogger(__name__)

MAX_JOB_BYTES = 256 * 2**20
PREFIX, UNREADABLE, GONE = "job_", "unreadable_", "gone_"
DAMAGED = (EngineError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""The errors of reading a job's file that another try would not change."""
JOB, THUMBNAIL, WORK = "job.json", "thumbnail.webp", "work"
KEPT_DAYS = 30
"""Days after which an unfinished video that nobody resumed is deleted."""
KEPT_ALWAYS = 3
"""The number of newest videos that stay all the same: a computer's clock may be wrong by years."""
DIGITS = 12
_OURS = re.compile(f"({PREFIX}|{GONE})[0-9a-f]{{16}}")


class JobStore:
    """The jobs' folders in `temp`; nobody else may use it at the same time. Job ids are 16 hex digits.

    Other things in `temp` are left alone.
    """

    def __init__(self, temp: Path) -> None:
        self._temp = temp.absolute()

    def add(self, name: str, folder: Path, request: GenerationRequest, position: int) -> Job:
        """Copy the pictures of a new job and write it to the disk, where the next start finds it.

        Every picture is read, one at a time; those in `data:` URIs stay where they are. Returns the job with
        the copies' paths, and the thumbnail of the picture that the video starts with.

        Raises:
            InputError: a picture cannot be read; nothing is kept.
            MachineError: a copy cannot be written; nothing is kept.
        """
        job_id, plan = secrets.token_hex(8), make_plan(request)
        own = self._folder(job_id)
        copies: dict[str, str] = {}
        thumbnail = b""
        try:
            for image in plan.pictures:
                picture = read_image(image)
                if image == plan.start:
                    thumbnail = make_thumbnail(picture)
                del picture  # before the next one is read
                copies[image] = image
                if not is_data_uri(image):
                    copies[image] = str(own / f"{len(copies) - 1}{Path(image).suffix[:10]}")
                    _write(Path(copies[image]), Path(image))
            _write(own / THUMBNAIL, thumbnail, flush=False)
            copied = request.map_images(copies.__getitem__)
            spec = JobSpec(job_id, name, folder, copied, own / WORK, request.close_after)
            job = Job(spec, thumbnail, position)
            self.write(job)
        except BaseException:
            self.delete(job_id)
            raise
        return job

    def write(self, job: Job) -> None:
        """Write a job whose pictures are copied to the disk.

        Raises:
            MachineError: it cannot be written.
        """
        spec = job.spec
        values = {
            "name": spec.name,
            "folder": str(spec.folder),
            "place": job.position,
            "is_begun": job.state != "waiting",
            "close_after": spec.close_after,
            # relative to the job's folder, so that the app can be moved
            "request": spec.request.map_images(
                lambda image: image if is_data_uri(image) else Path(image).name
            ).to_dict(),
        }
        _write(self._folder(job.id) / JOB, json.dumps(values, ensure_ascii=False, indent=1).encode())

    def delete(self, job_id: str) -> None:
        """Delete all of a job, if there is anything. One that is half deleted is never found again."""
        folder = self._folder(job_id)
        gone = folder.with_name(f"{GONE}{job_id}")
        with contextlib.suppress(OSError):
            folder.rename(gone)
        for path in (gone, folder):
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> tuple[list[Job], list[Notice]]:
        """Return all jobs that are kept, by their positions, and notices about damaged ones.

        The remains of a job that was never written completely, was deleted, or has its video are deleted. A
        damaged job is renamed and stays; one that cannot be read now is tried again at the next start.
        """
        jobs, notices = [], []
        entries = (entry for entry in self._temp.glob("*") if _OURS.fullmatch(entry.name))
        for folder in filter(Path.is_dir, entries):
            try:
                is_gone = folder.name.startswith(GONE)
                if is_gone or not ((folder / JOB).exists() or any((folder / WORK).glob("section_*"))):
                    shutil.rmtree(folder, ignore_errors=True)  # which follows no link
                    continue
                job = _read(folder)
                spec = job.spec
                # a partial one may have been renamed
                if count_frames(spec.folder / f"{spec.name}.mp4") == make_plan(spec.request).pixel_frames:
                    self.delete(job.id)
                else:
                    jobs.append(job)
            except (*DAMAGED, OSError) as error:
                reason = loggable(error) if isinstance(error, InputError) else error
                logger.warning("the job in %s cannot be read: %s", folder, reason)
                if isinstance(error, (*DAMAGED, FileNotFoundError)):
                    with contextlib.suppress(OSError):
                        folder = folder.rename(
                            folder.with_name(UNREADABLE + folder.name.removeprefix(PREFIX))
                        )
                notices.append(Notice("job_unreadable", {"path": str(folder)}))
        return sorted(jobs, key=lambda job: (job.position, job.name)), notices

    def _folder(self, job_id: str) -> Path:
        return self._temp / f"{PREFIX}{job_id}"


def _write(target: Path, content: bytes | Path, flush: bool = True) -> None:
    """Write bytes, or a copy of a file, whole or not at all."""
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, flush) as part:
            if isinstance(content, bytes):
                part.write_bytes(content)
            else:
                shutil.copyfile(content, part)


def _read(folder: Path) -> Job:
    """Read a job's folder.

    Raises:
        OSError: it cannot be read; errors of `DAMAGED`: it is damaged.
    """
    path, work = folder / JOB, folder / WORK
    if path.stat().st_size > MAX_JOB_BYTES:
        raise ValueError("too large")
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    request = GenerationRequest.from_dict(values["request"], folder)
    if request.seed is None:
        raise InputError("broken_text", field="seed")
    job_id, name, close_after = folder.name.removeprefix(PREFIX), values["name"], values.get("close_after")
    close_after = None if close_after is None else int(close_after)
    spec = JobSpec(job_id, check_name(name), Path(values["folder"]), request, work, close_after)
    plan, done = make_plan(request), count_stored_sections(work)
    sections = len(plan.sections)
    progress = Progress(sections=sections, sections_done=min(done, sections))
    thumbnail = (folder / THUMBNAIL).read_bytes() if (folder / THUMBNAIL).exists() else b""
    job = Job(spec, thumbnail, int(values["place"]), progress=progress)
    if videos := list_partial_videos(work):
        job = replace(job, video=videos[-1], frames=kept_frames(plan.size, done))
    return job.mark_interrupted() if values["is_begun"] else job


def work_folder(temp: Path, output: Path, name: str) -> Path:
    """Return the working folder of the video `output/name.mp4`: the same one in every run."""
    target = os.path.normcase(os.path.realpath(output / name))
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:DIGITS]
    return temp / "headless" / digest


def delete_stale(temp: Path) -> None:
    """Delete working folders that have not changed for `KEPT_DAYS`, all but the newest few."""
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    with contextlib.suppress(OSError):  # there are none yet
        folders = [path for path in (temp / "headless").iterdir() if path.is_dir()]
        for folder in sorted(folders, key=_newest, reverse=True)[KEPT_ALWAYS:]:
            if _newest(folder) < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _newest(folder: Path) -> float:
    """Return the time of the last change in a folder."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))

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
    count_frames,
    count_stored_sections,
    list_partial_videos,
    new_file,
    read_image,
    read_small,
)
from diffusers_helper.request import GenerationRequest, is_data_uri
from diffusers_helper.sections import kept_frames

from ..output import DEFAULT_OUTPUT, check_name, find_stored_folder, portable_path
from ..support.failures import loggable
from .job import Job, JobSpec, Progress
from .pictures import make_thumbnail

logger = logging.getLogger(__name__)

MAX_JOB_BYTES = 256 * 2**20
MAX_THUMBNAIL_BYTES = 2**20
PREFIX, UNREADABLE, GONE, TRASH = "job_", "unreadable_", "gone_", "trash_"
DAMAGED = (EngineError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""The errors of reading a job's file that another try would not change."""
JOB, THUMBNAIL, WORK = "job.json", "thumbnail.webp", "work"
KEPT_DAYS = 30
"""Days after which an unfinished video that nobody resumed is deleted."""
KEPT_ALWAYS = 3
"""The number of newest videos that stay all the same: a computer's clock may be wrong by years."""
DIGITS = 12
_OURS = re.compile(f"({PREFIX}|{GONE}|{TRASH})[0-9a-f]{{16}}")


class JobStore:
    """The jobs' folders in `temp`; nobody else may use it at the same time. Job ids are 16 hex digits.

    Other things in `temp` are left alone. Paths in `home` are stored relative to it, because it may be moved;
    `output` takes the place of an output folder that is away.
    """

    def __init__(self, temp: Path, home: Path | None = None, output: Path | None = None) -> None:
        self._temp = temp.absolute()
        self._home = self._temp.parent if home is None else home.absolute()
        self._output = self._home / DEFAULT_OUTPUT if output is None else output.absolute()

    def add(
        self,
        name: str,
        folder: Path,
        request: GenerationRequest,
        position: int,
        eight_bit: bool | None = None,
        random_seed: bool = False,
    ) -> Job:
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
            how = request.close_after, random_seed, eight_bit
            spec = JobSpec(job_id, name, folder, copied, own / WORK, *how)
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
        # relative to the job's folder, so that the app can be moved
        request = spec.request.map_images(lambda image: image if is_data_uri(image) else Path(image).name)
        if (previous := request.previous_video) is not None:
            request = replace(request, previous_video=portable_path(Path(previous), self._home))
        values = {
            "name": spec.name,
            "folder": portable_path(spec.folder, self._home),
            "place": job.position,
            "is_begun": job.state != "waiting",
            "close_after": spec.close_after,
            "eight_bit": spec.eight_bit,
            "random_seed": spec.random_seed,
            "request": request.to_dict(),
        }
        _write(self._folder(job.id) / JOB, _encoded(values))

    def delete(self, job_id: str) -> None:
        """Delete all of a job, if there is anything. One that is half deleted is never found again."""
        folder = self._folder(job_id)
        gone = folder.with_name(f"{GONE}{job_id}")
        for path in (folder, self._trash(job_id)):
            with contextlib.suppress(OSError):
                path.rename(gone)
        for path in (gone, folder, self._trash(job_id)):
            shutil.rmtree(path, ignore_errors=True)

    def set_aside(self, job_id: str) -> None:
        """Make a job one that the next start deletes, unless it is brought back."""
        with contextlib.suppress(OSError):  # a file of it is open
            self._folder(job_id).rename(self._trash(job_id))

    def bring_back(self, job_id: str) -> bool:
        """Make a job that was set aside one of all again; False where it is gone."""
        with contextlib.suppress(OSError):
            self._trash(job_id).rename(self._folder(job_id))
        return self._folder(job_id).is_dir()

    def load(self) -> tuple[list[Job], list[Notice]]:
        """Return all jobs that are kept, by their positions, and notices about damaged ones.

        The remains of a job that was never written completely, was thrown away, or has its video are
        deleted. A damaged job is renamed and stays; one that cannot be read now is tried again at the next
        start.
        """
        jobs, notices = [], []
        entries = (entry for entry in self._temp.glob("*") if _OURS.fullmatch(entry.name))
        for folder in filter(Path.is_dir, entries):
            try:
                if folder.name.startswith(TRASH):
                    self._delete_thrown_away(folder)
                    continue
                is_gone = folder.name.startswith(GONE)
                if is_gone or not ((folder / JOB).exists() or any((folder / WORK).glob("section_*"))):
                    shutil.rmtree(folder, ignore_errors=True)  # which follows no link
                    continue
                job, stored = self._read(folder)
                spec = job.spec
                if stored is not None:
                    away = Notice("output_folder_away", {"path": stored, "folder": str(spec.folder)})
                    notices += [away] if away not in notices else []
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

    def _delete_thrown_away(self, folder: Path) -> None:
        with contextlib.suppress(*DAMAGED, OSError):
            self._read(folder)[0].spec.delete_left_files()
        shutil.rmtree(folder, ignore_errors=True)

    def _read(self, folder: Path) -> tuple[Job, str | None]:
        """Read a job's folder; the second value is its output folder where another takes its place.

        Raises:
            OSError: it cannot be read; errors of `DAMAGED`: it is damaged.
        """
        path, work = folder / JOB, folder / WORK
        values: dict[str, Any] = json.loads(read_small(path, MAX_JOB_BYTES).decode())
        marker = folder.relative_to(self._home)
        asked = values["request"]
        if isinstance(asked, dict) and isinstance(asked.get("previous_video"), str):
            asked = asked | {"previous_video": str(self._find_video(asked["previous_video"], marker))}
        request = GenerationRequest.from_dict(asked, folder)
        if request.seed is None:
            raise InputError("broken_text", field="seed")
        job_id, name = folder.name.removeprefix(PREFIX), values["name"]
        close_after, eight_bit = values.get("close_after"), values.get("eight_bit")
        close_after = None if close_after is None else int(close_after)
        eight_bit = None if eight_bit is None else bool(eight_bit)  # None: of an earlier version
        stored = values["folder"]
        output = find_stored_folder(stored, self._home, self._output, marker)
        random_seed = values.get("random_seed") is True
        spec = JobSpec(job_id, check_name(name), output, request, work, close_after, random_seed, eight_bit)
        plan, done = make_plan(request), count_stored_sections(work)
        sections = len(plan.sections)
        sampled = count_stored_sections(work, "latents")
        progress = Progress(sections=sections, sections_done=min(done, sections), steps_kept=sampled > done)
        thumbnail = b""
        with contextlib.suppress(OSError, ValueError):
            thumbnail = read_small(folder / THUMBNAIL, MAX_THUMBNAIL_BYTES)
        job = Job(spec, thumbnail, int(values["place"]), progress=progress)
        if videos := list_partial_videos(work):
            job = replace(job, video=videos[-1], frames=kept_frames(plan.size, done))
        job = job.mark_interrupted() if values["is_begun"] else job
        is_away = output != self._home / stored and not os.path.isdir(stored)  # noqa: PTH112  (is_dir may raise)
        return job, stored if is_away else None

    def _find_video(self, stored: str, marker: Path) -> Path:
        """Return the path of a video that `portable_path` stored."""
        name = re.split(r"[/\\]", stored)[-1]
        folder = stored[: -len(name)] or "."
        return find_stored_folder(folder, self._home, self._output, marker) / name

    def _folder(self, job_id: str) -> Path:
        return self._temp / f"{PREFIX}{job_id}"

    def _trash(self, job_id: str) -> Path:
        return self._temp / f"{TRASH}{job_id}"


def _encoded(values: dict[str, Any]) -> bytes:
    """Encode as JSON; a name of bytes that are no UTF-8 becomes JSON's escapes."""
    return json.dumps(values, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def _write(target: Path, content: bytes | Path, flush: bool = True) -> None:
    """Write bytes, or a copy of a file, whole or not at all."""
    with new_file(target, flush=flush) as part:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            shutil.copyfile(content, part)


def work_folder(temp: Path, output: Path, name: str) -> Path:
    """Return the working folder of the video `output/name.mp4`: the same one in every run.

    It stays the same where the home, `temp`'s folder, was moved with the video's. That of an earlier
    version is used while it is there.
    """
    target = Path(os.path.realpath(output / name))
    places = (portable_path(target, Path(os.path.realpath(temp.parent))), target)
    folders = [temp / "headless" / _digest(os.path.normcase(place)) for place in places]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:DIGITS]


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

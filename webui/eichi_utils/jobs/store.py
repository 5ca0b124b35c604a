"""The jobs on the disk: a folder each, with the request, own copies of the pictures, and all that was made.

What is here survives the app: after a crash, the next start finds every job that has no video yet. Knows no
queue.
"""

import contextlib
import errno
import itertools
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusers_helper.errors import EngineError, InputError, MachineError
from diffusers_helper.events import Notice
from diffusers_helper.files.atomic import atomic_write
from diffusers_helper.job.section_files import count_stored_sections, list_partial_videos
from diffusers_helper.media.images import read_image
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest, is_data_uri

from ..output import check_name
from ..support.failures import loggable
from .job import JobSpec
from .pictures import make_thumbnail

logger = logging.getLogger(__name__)

MAX_ENTRIES = 10_000
"""More of a foreign folder is not even looked at."""
MAX_JOB_BYTES = 256 * 2**20
PREFIX, UNREADABLE, GONE = "job_", "unreadable_", "gone_"
DAMAGED = (EngineError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)
"""What reading a job's file may raise that no other moment would change."""
JOB, THUMBNAIL, WORK = "job.json", "thumbnail.webp", "work"
_OURS = re.compile(f"({PREFIX}|{GONE})[0-9a-f]{{16}}")


@dataclass(frozen=True)
class StoredJob:
    """A job as it lies on the disk.

    Attributes:
        place: its place in the queue, the smallest first.
        is_begun: it was running, and did not come to its end.
        sections_done, video: finished sections, and the newest video of them.
    """

    spec: JobSpec
    thumbnail: bytes
    place: int
    is_begun: bool
    sections_done: int
    video: Path | None


class JobFiles:
    """The jobs' folders in `temp`; nobody else may use it at the same time. Job ids are 16 hex digits.

    Other things in `temp` are left alone.
    """

    def __init__(self, temp: Path) -> None:
        self._temp = temp.absolute()

    # -- new jobs ------------------------------------------------------------------------------------------

    def keep(self, job_id: str, request: GenerationRequest) -> tuple[GenerationRequest, bytes]:
        """Read every picture of a request and copy its file; one picture is in memory at a time.

        Returns:
            The request with the copies' paths (pictures in `data:` URIs stay where they are), and the
            thumbnail of the picture that the video starts with.

        Raises:
            InputError: a picture cannot be read; nothing is kept.
            MachineError: a copy cannot be written; nothing is kept.
        """
        start = request.start_picture
        names = [start, request.end_image, *(keyframe.image for keyframe in request.keyframes)]
        copies: dict[str, str] = {}
        thumbnail = b""
        try:
            for name in dict.fromkeys(name for name in names if name is not None):
                shown = _look_at(name, is_shown=name == start)
                thumbnail = shown or thumbnail
                copies[name] = name if is_data_uri(name) else str(self._copy(name, job_id, len(copies)))
            self._write(self._folder(job_id) / THUMBNAIL, thumbnail, flush=False)
        except BaseException:
            self.drop(job_id)
            raise
        return request.map_images(lambda name: None if name is None else copies[name]), thumbnail

    def record(self, spec: JobSpec, place: int, is_begun: bool) -> None:
        """Write down a job whose pictures are kept: from now on the next start finds it.

        Raises:
            MachineError: it cannot be written.
        """
        folder = self._folder(spec.id)
        values = {
            "name": spec.name,
            "folder": str(spec.folder),
            "place": place,
            "is_begun": is_begun,
            "close_after": spec.close_after,
            "request": spec.request.map_images(lambda name: _inside(name, folder)).to_dict(),
        }
        self._write(folder / JOB, json.dumps(values, ensure_ascii=False, indent=1).encode())

    def work_folder(self, job_id: str) -> Path:
        """Where the engine keeps a job's finished sections."""
        return self._folder(job_id) / WORK

    def drop(self, job_id: str) -> None:
        """Delete all of a job; no matter whether there is anything. One that is half deleted is never found
        again."""
        folder = self._folder(job_id)
        gone = folder.with_name(f"{GONE}{job_id}")
        with contextlib.suppress(OSError):
            folder.rename(gone)
        for path in (gone, folder):
            shutil.rmtree(path, ignore_errors=True)

    # -- after a start ---------------------------------------------------------------------------------------

    def load(self) -> tuple[list[StoredJob], list[Notice]]:
        """All jobs that are kept, in the order of their places, and what has to be said about damaged ones.

        What was left by a job that was never written down, was thrown away, or has its video is deleted. A
        job that is damaged is renamed and stays; one that cannot be read now is looked at again at the next
        start.
        """
        jobs, notices = [], []
        for folder in self._folders():
            try:
                is_gone = folder.name.startswith(GONE)
                if is_gone or not ((folder / JOB).exists() or (folder / WORK).exists()):
                    shutil.rmtree(folder, ignore_errors=True)  # which follows no link
                    continue
                job = _read(folder)
                if _has_video(job.spec):
                    self.drop(job.spec.id)
                else:
                    jobs.append(job)
            except (*DAMAGED, OSError) as error:
                reason = loggable(error) if isinstance(error, InputError) else error
                logger.warning("the job in %s cannot be read: %s", folder, reason)
                is_damaged = isinstance(error, (*DAMAGED, FileNotFoundError))
                left = self._set_aside(folder) if is_damaged else folder
                notices.append(Notice("job_unreadable", {"path": str(left)}))
        return sorted(jobs, key=lambda job: (job.place, job.spec.name)), notices

    def _folders(self) -> list[Path]:
        try:
            entries = list(itertools.islice(self._temp.iterdir(), MAX_ENTRIES))
        except OSError:  # there is no such folder yet, or none that can be read
            return []
        return [entry for entry in entries if _OURS.fullmatch(entry.name) and entry.is_dir()]

    def _set_aside(self, folder: Path) -> Path:
        target = folder.with_name(UNREADABLE + folder.name.removeprefix(PREFIX))
        with contextlib.suppress(OSError):
            return folder.rename(target)
        return folder

    # -- helpers -------------------------------------------------------------------------------------------

    def _folder(self, job_id: str) -> Path:
        return self._temp / f"{PREFIX}{job_id}"

    def _copy(self, name: str, job_id: str, number: int) -> Path:
        source = Path(name)
        target = self._folder(job_id) / f"{number}{source.suffix[:10]}"
        self._write(target, source)
        return target

    def _write(self, target: Path, content: bytes | Path, flush: bool = True) -> None:
        """Write bytes, or a copy of a file, whole or not at all."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target, flush) as part:
                if isinstance(content, bytes):
                    part.write_bytes(content)
                else:
                    shutil.copyfile(content, part)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise MachineError("disk_full", path=str(target.parent)) from error
            reason = error.strerror or str(error)
            raise MachineError("cannot_write", path=str(error.filename or target), reason=reason) from error


def _look_at(name: str, is_shown: bool) -> bytes:
    """Read a picture to see that it can be read; returns its thumbnail where that is shown."""
    picture: np.ndarray = read_image(name)
    return make_thumbnail(picture) if is_shown else b""


def _inside(name: str | None, folder: Path) -> str | None:
    """A picture's name as it is written down: seen from the job's folder, so that the app can be moved."""
    return name if name is None or is_data_uri(name) else str(Path(name).relative_to(folder))


def _read(folder: Path) -> StoredJob:
    """A job's folder as a job.

    Raises:
        OSError: it cannot be read; what `DAMAGED` names: it is damaged.
    """
    values: dict[str, Any] = json.loads(_text(folder / JOB))
    request = GenerationRequest.from_dict(values["request"], folder)
    if request.seed is None:
        raise InputError("broken_text", field="seed")
    work = folder / WORK
    name = check_name(values["name"])
    job_id, asked = folder.name.removeprefix(PREFIX), values.get("close_after")
    spec = JobSpec(job_id, name, Path(values["folder"]), request, work, None if asked is None else int(asked))
    shown = list_partial_videos(work)
    return StoredJob(
        spec=spec,
        thumbnail=_thumbnail(folder),
        place=int(values["place"]),
        is_begun=bool(values["is_begun"]),
        sections_done=count_stored_sections(work),
        video=shown[-1] if shown else None,
    )


def _has_video(spec: JobSpec) -> bool:
    """Whether the whole video is there: a part of it that somebody gave its name is not."""
    video = spec.folder / f"{spec.name}.mp4"
    try:
        if not video.exists():
            return False
    except OSError:  # a drive that is away now
        return False
    from diffusers_helper.media.video import count_frames

    return count_frames(video) == make_plan(spec.request).pixel_frames


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_JOB_BYTES:
        raise ValueError("too large")
    return path.read_text("utf-8")


def _thumbnail(folder: Path) -> bytes:
    try:
        return (folder / THUMBNAIL).read_bytes()
    except OSError:
        return b""

"""The newest finished videos, which are the files in the output folder: one deleted there is gone here, too.

A thread of its own looks into the folder while pages are open, because a drive that is away may keep it
waiting. Only files that this app has made are listed. Knows no job.
"""

import contextlib
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusers_helper.errors import EngineError
from diffusers_helper.public import atomic_write, read_first_frame, read_packed, read_size_and_length

from .jobs.pictures import make_thumbnail

logger = logging.getLogger(__name__)

MAX_SHOWN = 12
LOOK_SECONDS = 1.0
"""Seconds between two looks into the folder."""
ASKED_SECONDS = 30.0
"""Seconds after which nobody looks any more, if no page has asked."""
SIZE = (288, 192)
"""Pixels of the largest thumbnail, twice as many each way as it is shown with."""
_PARTS = re.compile(r".*(_unfinished|_section_\d+)\.mp4", re.IGNORECASE | re.DOTALL)
"""The names of videos that are parts of others."""


@dataclass(frozen=True)
class RecentVideo:
    """A finished video. Its `id` changes with its content; without settings, its file holds no request."""

    id: str
    path: Path
    prompt: str
    has_settings: bool
    height: int
    width: int
    frames: int


class _Entry(NamedTuple):
    """A file as its folder lists it."""

    changed: int
    name: str
    size: int


class RecentVideos:
    """The list, newest first. Every method but `look` may be called from any thread.

    Args:
        folder: returns the output folder; raises EngineError where there is none.
        cache: the folder for thumbnails, which holds those of the listed videos alone.
        others: returns videos, in whatever folders, that are looked for, too.
    """

    def __init__(
        self, folder: Callable[[], Path], cache: Path, others: Callable[[], Iterable[Path]] = tuple
    ) -> None:
        self._folder = folder
        self._cache = cache
        self._others = others
        self.gone: frozenset[Path] = frozenset()
        """Those of the others that were not there at the last look."""
        self._known: dict[str, RecentVideo | None] = {}
        self._videos: tuple[RecentVideo, ...] = ()
        self._asked = time.monotonic()

    def start(self, end: threading.Event) -> None:
        """Look into the folder until `end`, in a thread of its own, as long as somebody asks."""

        def keep_looking() -> None:
            while True:
                if time.monotonic() - self._asked < ASKED_SECONDS:
                    self.look()
                if end.wait(LOOK_SECONDS):
                    return

        threading.Thread(target=keep_looking, name="recent videos", daemon=True).start()

    def view(self) -> tuple[RecentVideo, ...]:
        """Return the videos that the last look has found."""
        self._asked = time.monotonic()
        return self._videos

    def find(self, video_id: str) -> RecentVideo | None:
        return next((video for video in self._videos if video.id == video_id), None)

    def thumbnail(self, video_id: str) -> bytes | None:
        """Return the thumbnail of a listed video as WebP."""
        if self.find(video_id) is None:
            return None
        with contextlib.suppress(OSError):
            return self._thumbnail_file(video_id).read_bytes()
        return None

    def look(self) -> None:
        """Look into the folder, and for the others; a folder that is away has no videos."""
        self.gone = frozenset(path for path in self._others() if not os.path.isfile(path))  # noqa: PTH113  (is_file may raise)
        videos: list[RecentVideo] = []
        try:
            folder = self._folder()
            for video in self._videos_in(folder, _newest_first(folder)):
                videos.append(video)
                if len(videos) == MAX_SHOWN:
                    break
        except (EngineError, OSError) as error:
            logger.debug("the output folder cannot be read: %s", error)
        if tuple(videos) != self._videos:
            self._videos = tuple(videos)
            self._delete_thumbnails()

    def _videos_in(self, folder: Path, entries: list[_Entry]) -> Iterator[RecentVideo]:
        """Yield those files that are videos of ours. What is known of a file is kept while it is there."""
        before, self._known = self._known, {}
        for entry in entries:
            video_id = _id_of(folder, entry)
            if video_id not in before:
                before[video_id] = self._recognize(video_id, folder / entry.name)
            video = self._known[video_id] = before[video_id]
            if video is not None:
                yield video

    def _recognize(self, video_id: str, path: Path) -> RecentVideo | None:
        """Return what is shown of a file; None where it is none of ours, or broken."""
        try:
            packed = read_packed(path)
            if packed is None:
                return None
            height, width, frames = read_size_and_length(path)
            if not self._thumbnail_file(video_id).is_file():
                self._make_thumbnail(video_id, path)
        except (EngineError, OSError) as error:
            logger.info("%s is not listed: %s", path, type(error).__name__)
            return None
        prompt = packed.get("prompt")
        shown = prompt if isinstance(prompt, str) else ""
        return RecentVideo(video_id, path, shown, bool(packed), height, width, frames)

    # -- thumbnails ------------------------------------------------------------------------------------------

    def _thumbnail_file(self, video_id: str) -> Path:
        return self._cache / f"{video_id}.webp"

    def _make_thumbnail(self, video_id: str, path: Path) -> None:
        content = make_thumbnail(read_first_frame(path), SIZE)
        self._cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._thumbnail_file(video_id), flush=False) as part:
            part.write_bytes(content)

    def _delete_thumbnails(self) -> None:
        """Delete the thumbnails of videos that are no longer listed."""
        listed = {self._thumbnail_file(video.id) for video in self._videos}
        with contextlib.suppress(OSError):
            for path in [path for path in self._cache.iterdir() if path not in listed]:
                path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[_Entry]:
    """List the files that may be finished videos, the newest first; no link is followed."""
    entries = []
    with os.scandir(folder) as files:
        for file in files:
            if file.name.lower().endswith(".mp4") and not _PARTS.fullmatch(file.name):
                with contextlib.suppress(OSError):  # it has just gone
                    if file.is_file(follow_symlinks=False):
                        status = file.stat(follow_symlinks=False)
                        entries.append(_Entry(status.st_mtime_ns, file.name, status.st_size))
    return sorted(entries, reverse=True)


def _id_of(folder: Path, entry: _Entry) -> str:
    text = f"{folder}|{entry.name}|{entry.changed}|{entry.size}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]

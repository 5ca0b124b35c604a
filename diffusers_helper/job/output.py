"""The files that a job leaves in the output folder. Knows frames and requests, and no tensor."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from ..errors import InputError
from ..events import Notice
from ..files.atomic import atomic_write
from ..files.disk_errors import is_limit
from ..media.embedded_request import LEFT_OUT, to_comment, write_png
from ..media.joining import join_mp4, read_previous
from ..media.loop import Frames, looped
from ..media.video import encode_mp4, write_mp4
from ..plan import Plan
from ..request import GenerationRequest
from ..sections import pixel_frames

if TYPE_CHECKING:
    from .folder import JobFolder

logger = logging.getLogger(__name__)

UNFINISHED = "_unfinished.mp4"
JOINED = "_joined.mp4"


@dataclass(frozen=True)
class Target:
    """The files that a job writes: `folder/name.mp4` and others beside it.

    With `partial_videos`, the partial video is written after every section. `work` is the folder for the
    sections until the video is finished, None for one beside the video.
    """

    folder: Path
    name: str
    save_latents: bool = False
    partial_videos: bool = False
    work: Path | None = None

    @property
    def working_folder(self) -> Path:
        return self.file(".job") if self.work is None else self.work

    def check(self) -> None:
        """Check that the video can be written, before there is one.

        Raises:
            InputError: the folder cannot be made or takes no files, or the video's name is a folder's.
            OSError: the disk itself takes nothing: it is full, read-only, away.
        """
        try:
            if self.file(".mp4").is_dir():
                raise InputError("output_taken", path=str(self.file(".mp4")))
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            if is_limit(error):
                raise
            reason = error.strerror or str(error)
            raise InputError("output_not_writable", path=str(self.folder), reason=reason) from error

    def portable(self, request: GenerationRequest) -> GenerationRequest:
        """Return a request as the job's files hold it: with the name of a video in their own folder alone."""
        previous = Path(request.previous_video or "")
        name = previous.name if previous.absolute().parent == self.folder.absolute() else None
        return replace(request, previous_video=name or None)

    def file(self, ending: str) -> Path:
        """The video's path with another ending: ".mp4", "_section_001.png"."""
        return self.folder / f"{self.name}{ending}"


@dataclass(frozen=True)
class Written:
    """The finished video, and the file in which it is joined to the one before; a notice if that failed."""

    path: Path
    frames: int
    joined: Path | None = None
    joined_frames: int = 0
    notice: Notice | None = None


@dataclass(frozen=True)
class Output:
    """Writes a job's files, each with the packed request in it unless that asks for none.

    See `embedded_request`.
    """

    target: Target
    request: GenerationRequest
    plan: Plan
    folder: "JobFolder"
    packed: Mapping[str, object]

    def write_start(self, picture: np.ndarray) -> None:
        """Write the start picture, into a new folder if somebody deleted it."""
        self.target.folder.mkdir(parents=True, exist_ok=True)
        write_png(self.target.file(".png"), picture, self._comment(picture))

    def delete_start(self) -> None:
        """Delete the start picture of a video that is not made; beside one of that name it stays."""
        with contextlib.suppress(OSError):
            if not self.target.file(".mp4").exists():
                self.target.file(".png").unlink(missing_ok=True)

    def write_sections(self) -> None:
        """Write the section videos and stills that the request asks for, numbered as in the video."""
        frames = self._frames()
        per_section = pixel_frames(self.plan.size.latent_frames + 1) - 1
        for number in range(len(self.plan.sections)):
            first, last = number * per_section, (number + 1) * per_section
            label = f"_section_{number + 1:03d}"
            if self.request.keep_section_videos:
                self._write_mp4(label + ".mp4", frames(first + 1 if number else 0, last + 1))
            if self.request.save_section_stills:
                write_png(self.target.file(label + ".png"), next(frames(last, last + 1)), self._comment())

    def write_video(self) -> Written:
        """Write the finished video and, where it continues another one, both as one file.

        That is there before the video is, whose name means that nothing is missing. The video never waits
        for it: where it cannot be written, there is a notice in its place.
        """
        path, frames = self.target.file(".mp4"), self._frames()(0, self.folder.num_frames)
        how: dict[str, Any] = {"crf": self.request.crf, "comment": self._comment()}
        if self.request.previous_video is None:
            return Written(path, write_mp4(path, frames, **how))
        previous = Path(self.request.previous_video)
        try:
            set_id = read_previous(previous).choose_set_id()
        except InputError as error:
            return Written(path, write_mp4(path, frames, **how), notice=_not_joined(previous, error))
        with atomic_write(path) as part:
            written = Written(path, encode_mp4(part, frames, **how, continues=set_id))
            joined = self.target.file(JOINED)
            try:
                count = join_mp4(previous, part, joined, comment=how["comment"])
            except (InputError, OSError, MemoryError, av.error.FFmpegError) as error:
                return replace(written, notice=_not_joined(previous, error))
        return replace(written, joined=joined, joined_frames=count)

    def write_unfinished(self) -> Path | None:
        """Write the finished sections as a separate video, never as a loop: its beginning is missing.

        Returns None where nothing is finished, or where it cannot be written, which loses no section.
        """
        if not self.folder.num_sections:
            return None
        try:
            self.target.folder.mkdir(parents=True, exist_ok=True)
            self._write_mp4(UNFINISHED, self.folder.frames())
        except (OSError, ValueError, av.error.FFmpegError):
            logger.warning("the finished sections are in %s only", self.folder.path, exc_info=True)
            return None
        return self.target.file(UNFINISHED)

    def delete_unfinished(self) -> None:
        """Delete the video of an unfinished run, and what a killed run left of one."""
        for ending in (UNFINISHED, f"{UNFINISHED}.part"):
            with contextlib.suppress(OSError):  # somebody is watching it (Windows)
                self.target.file(ending).unlink(missing_ok=True)

    def _frames(self) -> Frames:
        frames = self.folder.frames
        return looped(frames, self.folder.num_frames) if self.request.loop else frames

    def _write_mp4(self, ending: str, frames: Iterable[np.ndarray]) -> int:
        return write_mp4(self.target.file(ending), frames, crf=self.request.crf, comment=self._comment())

    def _comment(self, own_picture: np.ndarray | None = None) -> str:
        return to_comment(self.packed, own_picture) if self.request.embed_request else LEFT_OUT


def _not_joined(previous: Path, error: Exception) -> Notice:
    """Log why the video was not joined to the one before; returns the notice about that."""
    logger.warning("the video was not joined", exc_info=error)
    if not os.path.exists(previous):  # noqa: PTH110  (exists may raise)
        return Notice("previous_video_gone", {"path": str(previous)})
    known = error.values.get("reason") if isinstance(error, InputError) else getattr(error, "strerror", None)
    reason = known or str(error.__cause__ or "") or type(error).__name__
    return Notice("not_joined", {"path": str(previous), "reason": reason})

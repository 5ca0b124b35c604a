"""The files that a job leaves in the output folder. Knows frames and requests, and no tensor."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av

from .loop import Frames, looped
from .recording import write_png
from .request import GenerationRequest
from .sections import Plan, pixel_frames
from .video import write_mp4

if TYPE_CHECKING:
    from .job_folder import JobFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where a job writes: `folder/name.mp4` and its companions.

    With `progress_videos`, the video so far is written after every section (see `progress_video`).
    """

    folder: Path
    name: str
    save_latents: bool = False
    progress_videos: bool = False

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.name}{ending}"


@dataclass(frozen=True)
class Output:
    """What is written, and the packed request that each file carries (see `recording`)."""

    target: Target
    request: GenerationRequest
    plan: Plan
    packed: Mapping[str, object]

    def write_sections(self, folder: "JobFolder") -> None:
        """Write the section videos and stills that the request asks for, numbered as in the video."""
        frames = self._frames(folder)
        per_section = pixel_frames(self.plan.size.latent_frames + 1) - 1
        for number in range(len(self.plan.sections)):
            first, last = number * per_section, (number + 1) * per_section
            label = f"_section_{number + 1:03d}"
            if self.request.keep_section_videos:
                part = frames(first + 1 if number else 0, last + 1)
                write_mp4(self.target.file(label + ".mp4"), part, crf=self.request.crf, comment=self._comment)
            if self.request.save_section_stills:
                write_png(self.target.file(label + ".png"), next(frames(last, last + 1)), self.packed)

    def write_video(self, folder: "JobFolder") -> tuple[Path, int]:
        """Write the finished video; returns the file and its number of frames."""
        path, frames = self.target.file(".mp4"), self._frames(folder)
        count = write_mp4(path, frames(0, folder.num_frames), crf=self.request.crf, comment=self._comment)
        return path, count

    def keep_finished(self, folder: "JobFolder") -> Path | None:
        """Write what is finished as a video of its own, never as a loop: its beginning is not there yet.

        Returns:
            The video; where not even that works, the working folder, which is kept; None where nothing
            was finished.
        """
        if not folder.num_sections:
            return None
        path = self.target.file("_unfinished.mp4")
        try:
            write_mp4(path, folder.frames(), crf=self.request.crf, comment=self._comment)
        except (OSError, av.error.FFmpegError):
            folder.keep_as(self.target.file("_unfinished"))
            logger.warning("the finished sections stay as they are in %s", folder.path, exc_info=True)
            return folder.path
        return path

    def _frames(self, folder: "JobFolder") -> Frames:
        return looped(folder.frames, folder.num_frames) if self.request.loop else folder.frames

    @property
    def _comment(self) -> str:
        return json.dumps(self.packed, ensure_ascii=False)

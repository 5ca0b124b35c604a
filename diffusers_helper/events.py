"""The events that the engine yields while it works. Knows no listener."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .plan import Plan

Stage = Literal[
    "eight_bit", "images", "prompt", "vision", "transformer", "compiling", "sampling", "decoding", "saving"
]
NoticeCode = Literal[
    "demo_models",
    "eight_bit",
    "file_set_aside",
    "file_unusable",
    "int8_attention",
    "job_unreadable",
    "no_file_locks",
    "not_compiled",
    "not_joined",
    "output_folder_away",
    "previous_video_gone",
    "prompt_too_long",
    "section_damaged",
    "setting_unusable",
    "video_flat",
    "video_noise",
    "waits_for_disk",
    "weights_unknown",
]
"""The names of all notices. Each has a sentence in `locales/*.json` with the key `notice.<code>`."""


@dataclass(frozen=True)
class Planned:
    """The plan is made, and the size and seed of the video are known."""

    plan: Plan
    width: int
    height: int
    seed: int


@dataclass(frozen=True)
class StageStarted:
    """A part of the work begins; `section` counts from 0 where the stage belongs to one."""

    stage: Stage
    section: int | None = None


@dataclass(frozen=True)
class StageProgress:
    """The fraction of the latest stage that is done, from 0 to 1; not every stage reports it."""

    fraction: float


@dataclass(frozen=True)
class Notice:
    """A message to the user about something that does not stop the work."""

    code: NoticeCode
    values: dict[str, object]


@dataclass(frozen=True)
class StepDone:
    """One denoising step is done. `step` counts from 1; `preview` is `(frames, height, width, 3)` uint8, one
    for each latent frame of the section."""

    section: int
    sections: int
    step: int
    steps: int
    computed: bool
    preview: np.ndarray


@dataclass(frozen=True)
class SectionDone:
    """A section is decoded and stored; the video has `pixel_frames` frames so far, its end first.

    `video` holds these frames where they were asked for and could be written, but after the last section,
    because the finished video comes next. It is a new file each time, in the job's folder: the one before
    stays for the next section, and all go with the job.
    """

    section: int
    sections: int
    pixel_frames: int
    video: Path | None = None


@dataclass(frozen=True)
class Resumed:
    """The job resumes behind `sections_done` sections that an earlier run has finished.

    The video has `pixel_frames` frames so far, its end; `video` holds them as in `SectionDone`.
    """

    sections_done: int
    sections: int
    pixel_frames: int
    video: Path | None = None


@dataclass(frozen=True)
class Finished:
    """The video is written; `joined` is the file that holds the video before it, too, of `joined_frames`."""

    video: Path
    frames: int
    seconds: float
    width: int
    height: int
    elapsed: float
    joined: Path | None = None
    joined_frames: int = 0


@dataclass(frozen=True)
class Stopped:
    """The user asked to stop. The finished sections are the END of the video: they are in the job's folder,
    from which the next run resumes, and in the video `kept`, where that could be written."""

    kept: Path | None
    sections_done: int
    sections: int


Event = (
    Planned | StageStarted | StageProgress | Notice | StepDone | SectionDone | Resumed | Finished | Stopped
)

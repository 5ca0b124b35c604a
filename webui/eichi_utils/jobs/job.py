"""One job at one moment, and the pure function that returns its next moment, after an engine's event."""

import contextlib
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from diffusers_helper import events
from diffusers_helper.request import GenerationRequest

from ..support.failures import Failure
from ..text.translations import Translator
from .eta import Eta

JobState = Literal["waiting", "running", "done", "stopped", "failed", "interrupted"]
"""`interrupted`: an earlier run of the app ended in the middle of it."""
MAX_NOTICES = 20
LEFT_ENDINGS = (
    r"(\.(png|safetensors)|_(unfinished|joined)\.mp4|_section_\d+\.(mp4|png)|(\.mp4(?=\.part)))(\.part)?"
)
"""The endings of files that a job may have written before its video is there."""


@dataclass(frozen=True)
class JobSpec:
    """The task of a runner: to make `folder/name.mp4` from `request`, whose seed is fixed. Finished sections
    are kept in the folder `work` until the video is there."""

    id: str
    name: str
    folder: Path
    request: GenerationRequest
    work: Path
    close_after: int | None = None
    """The original request's; `request` may have that of "finish short"."""
    random_seed: bool = False
    """True where the seed was drawn when the job was queued."""
    eight_bit: bool | None = None
    """The choice of the fast 8-bit weights for this job; None for what the command line says."""

    @property
    def private_texts(self) -> list[str]:
        """The user's own texts, which no report may hold."""
        request = self.request
        return [request.prompt, request.negative_prompt, *(frame.prompt for frame in request.keyframes)]

    @property
    def unfinished_video(self) -> Path:
        """The file that the engine writes what is finished to when it ends early."""
        return self.folder / f"{self.name}_unfinished.mp4"

    def left_files(self) -> list[Path]:
        """Return the files of an unfinished job in the output folder, partly written ones among them."""
        ours = re.compile(re.escape(self.name) + LEFT_ENDINGS)
        try:
            return [path for path in self.folder.iterdir() if ours.fullmatch(path.name)]
        except OSError:  # the folder is gone
            return []

    def delete_left_files(self) -> None:
        """Delete the files of an unfinished job in the output folder, but for the picture of a video."""
        kept = f"{self.name}.png" if (self.folder / f"{self.name}.mp4").exists() else None
        for path in self.left_files():
            if path.name != kept:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)


Run = Callable[[JobSpec, threading.Event], Generator[events.Event, None, None]]
"""A function that makes a job's video: yields the engine's events, at last Finished or Stopped."""
StartEta = Callable[[GenerationRequest, events.Planned], Eta]


@dataclass(frozen=True)
class Progress:
    """The progress of a job. `section` counts from 0, `step` from 1 (0: none yet); `stage` is None at first.

    `sections_done` are kept, whatever happens; with `steps_kept` so are the steps of the section behind them,
    which is not decoded yet. `frames`, `seconds`, `width` and `height` are the planned
    video's, 0 until it is planned. `fraction` runs from 0 to 1 and never falls. `seconds_left` is None where
    it is unknown, as is `stage_fraction`, from 0 to 1, of a stage that does not report any.
    """

    stage: str | None = None
    section: int = 0
    sections: int = 0
    step: int = 0
    steps: int = 0
    frames: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    seconds_left: float | None = None
    fraction: float = 0.0
    sections_done: int = 0
    stage_fraction: float | None = None
    steps_kept: bool = False

    @property
    def is_finishing(self) -> bool:
        """True while the whole video is written, which nothing stops; a stop writes a part of it."""
        return self.stage == "saving" and self.sections_done == self.sections > 0

    def stage_text(self, words: Translator) -> str:
        """Return the stage in words, with its percentage where it reports one."""
        stage = words(f"stage.{self.stage}")
        if self.stage_fraction is None:
            return stage
        return words("progress.stage", stage=stage, percent=round(100 * self.stage_fraction))

    def after(self, event: events.Event) -> "Progress":
        """Return the progress after an event, but for the time."""
        match event:
            case events.Planned(plan=plan, width=width, height=height):
                planned = replace(self, sections=len(plan.sections), frames=plan.pixel_frames)
                return replace(planned, seconds=plan.seconds, width=width, height=height)
            case events.StageStarted(stage="sampling" as stage, section=int(section)):
                return replace(self, stage=stage, stage_fraction=None, section=section, step=0)
            case events.StageStarted(stage="decoding" as stage, section=int(section)):
                return replace(self, stage=stage, stage_fraction=None, section=section, steps_kept=True)
            case events.StageStarted(stage=stage):
                return replace(self, stage=stage, stage_fraction=None)
            case events.StageProgress(fraction=fraction):
                return replace(self, stage_fraction=fraction)
            case events.StepDone(section=section, sections=sections, step=step, steps=steps):
                return replace(self, section=section, sections=sections, step=step, steps=steps)
            case events.SectionDone(section=section, sections=sections):
                return replace(self, sections_done=section + 1, sections=sections, steps_kept=False)
            case events.Resumed() | events.Stopped():
                return replace(self, sections_done=event.sections_done, sections=event.sections)
            case events.Finished():
                return replace(self, fraction=1.0)
        return self


@dataclass(frozen=True)
class Job:
    """A job at one moment. Times are seconds of one monotonic clock.

    Attributes:
        spec: the task, with the job's own copies of the pictures; they go when the video is there.
        thumbnail: a WebP picture, empty where there is none.
        position: in the queue; the smallest runs first.
        held: it waits, and is not begun as long as somebody edits it; the next start knows nothing of that.
        stopping: it runs, and was asked to stop.
        preview: the newest latents of a running job, `(frames, height, width, 3)` uint8, the
            `preview_number`-th ones.
        outcome: the state that the runner reported; `state` changes when the runner has cleaned up.
        video: the newest partial video (the end), at last the finished one, joined to the one before where it
            continues that; it has `frames` frames.
        frames_done: the frames of all finished sections.
        can_finish: it ended before its video was there, and can be resumed.
        notices: (code, values), each shown as `notice.<code>`.
        elapsed: seconds since the job began, of an ended one its whole time; None while it waits.
        ended: the time of its end; 0 before, and for a job of an earlier run.
    """

    spec: JobSpec
    thumbnail: bytes = b""
    position: int = 0
    state: JobState = "waiting"
    held: bool = False
    stopping: bool = False
    outcome: JobState | None = None
    progress: Progress = Progress()
    preview: np.ndarray | None = field(default=None, compare=False)
    preview_number: int = 0
    video: Path | None = None
    frames: int = 0
    frames_done: int = 0
    failure: Failure | None = None
    can_finish: bool = False
    notices: tuple[tuple[str, dict[str, object]], ...] = ()
    elapsed: float | None = None
    started: float = 0.0
    ended: float = 0.0
    eta: Eta | None = None

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def request(self) -> GenerationRequest:
        return self.spec.request

    @property
    def can_finish_short(self) -> bool:
        """True where the closing section, made now, would leave sections out."""
        return self.can_finish and 0 < self.progress.sections_done < self.progress.sections - 1

    def at(self, now: float) -> "Job":
        """Return the job with the time that has passed, and that is left, at `now`."""
        if self.state != "running":
            return self
        progress = self.progress
        if self.eta is not None:
            done, left = self.eta.at(now)
            progress = replace(progress, fraction=max(progress.fraction, done), seconds_left=left)
        return replace(self, elapsed=now - self.started, progress=progress)

    def mark_interrupted(self) -> "Job":
        """Return a job that was begun, and is resumed only when somebody asks for it."""
        return replace(self, state="interrupted", can_finish=True)

    def requeued(self, request: GenerationRequest, position: int) -> "Job":
        """Return a waiting job that resumes this one, and shows what this one has made until then."""
        was = self.progress
        progress = Progress(sections=was.sections, sections_done=was.sections_done, steps_kept=was.steps_kept)
        spec = replace(self.spec, request=request)
        return Job(spec, self.thumbnail, position, progress=progress, video=self.video, frames=self.frames)

    def end(self, now: float, failure: Failure | None, can_finish: bool) -> "Job":
        """Return a job whose runner is through: with the outcome that it reported, or with a failure."""
        job = replace(self, failure=failure, can_finish=can_finish, eta=None, preview=None, preview_number=0)
        if failure is not None:
            video = self.spec.unfinished_video
            job = _with_kept(job, video if video in self.spec.left_files() else None)
            job = replace(job, outcome="failed")
        assert job.outcome is not None
        progress = replace(job.progress, stage=None, seconds_left=None)
        elapsed = now - self.started
        return replace(job, state=job.outcome, stopping=False, progress=progress, elapsed=elapsed, ended=now)


def apply(job: Job, event: events.Event, now: float) -> Job:
    """Return a job after an event of its runner at `now`."""
    progress = replace(job.progress, fraction=job.at(now).progress.fraction).after(event)
    job = replace(job, progress=progress, eta=job.eta.apply(event, now) if job.eta else None)
    match event:
        case events.StepDone(preview=preview):
            return replace(job, preview=preview, preview_number=job.preview_number + 1)
        case events.SectionDone() | events.Resumed():
            return _with_kept(replace(job, frames_done=event.pixel_frames), event.video)
        case events.Notice(code=code, values=values) if len(job.notices) < MAX_NOTICES:
            notice = code, dict(values)
            return job if notice in job.notices else replace(job, notices=(*job.notices, notice))
        case events.Finished(joined=Path() as joined):
            return replace(job, video=joined, frames=event.joined_frames, outcome="done")
        case events.Finished(video=video, frames=frames):
            return replace(job, video=video, frames=frames, outcome="done")
        case events.Stopped(kept=kept):
            return replace(_with_kept(job, kept), outcome="stopped")
    return job


def _with_kept(job: Job, video: Path | None) -> Job:
    """The job with a video of all that is finished, if there is one, else with the one before."""
    return job if video is None else replace(job, video=video, frames=job.frames_done)

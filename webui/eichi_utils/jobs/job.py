"""One job: what the engine's events make of it, and the frozen picture of it that pages show.

Knows no queue, no thread and no page. A `Job` is not safe for threads by itself: the queue's lock guards it.
"""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from diffusers_helper.events import (
    Event,
    Finished,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageProgress,
    StageStarted,
    StepDone,
    Stopped,
)
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import kept_frames

from ..support.failures import Failure
from .pictures import LatentPreview

logger = logging.getLogger(__name__)

JobState = Literal["waiting", "running", "done", "stopped", "failed", "interrupted"]
"""`interrupted`: an earlier run of the app ended in the middle of it."""
DECODING_STEPS, SAVING_STEPS = 2, 1
"""What decoding a section and writing the video count in the progress, in steps."""
MAX_NOTICES = 20
LEFT_ENDINGS = r"(\.(png|safetensors)|_unfinished\.mp4|_section_\d+\.(mp4|png)|(\.mp4(?=\.part)))(\.part)?"
"""Of the files that a job may have written before its video is there."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class JobSpec:
    """What a runner needs to make a video: `folder/name.mp4` from `request`, whose seed is fixed. Finished
    sections lie in the folder `work` until the video is there."""

    id: str
    name: str
    folder: Path
    request: GenerationRequest
    work: Path
    close_after: int | None = None
    """As it was asked for: the request's own may be that of "finish short"."""

    @property
    def original_request(self) -> GenerationRequest:
        """The request as it was asked for."""
        return replace(self.request, close_after=self.close_after)

    @property
    def private_texts(self) -> list[str]:
        """What the user wrote, and no report may hold."""
        request = self.request
        return [request.prompt, request.negative_prompt, *(frame.prompt for frame in request.keyframes)]

    @property
    def unfinished_video(self) -> Path:
        """Where the engine writes what is finished when it ends early."""
        return self.folder / f"{self.name}_unfinished.mp4"

    def left_files(self) -> list[Path]:
        """What a job that is not finished has in the output folder, halves of files among it."""
        ours = re.compile(re.escape(self.name) + LEFT_ENDINGS)
        try:
            return [path for path in self.folder.iterdir() if ours.fullmatch(path.name)]
        except OSError:  # the folder is gone
            return []


@dataclass(frozen=True)
class Progress:
    """How far a job is. `section` counts from 0, `step` from 1 (0: none yet); `stage` None: getting ready.

    `sections_done` are kept, whatever happens. `frames`, `seconds`, `width` and `height` are the planned
    video's, 0 until it is planned.
    `fraction` runs from 0 to 1 and never falls; `seconds_left` is None where nobody can say, and so is
    `stage_fraction`, from 0 to 1, for a stage that does not tell how far it is.
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


@dataclass(frozen=True)
class JobView:
    """A job at one moment.

    Attributes:
        request: with its own copies of the pictures; a job that is done has them in its video only.
        preview_number: rises with every new latent preview; 0: there is none.
        video: the video so far (its end), at last the finished one; None: nothing.
        can_finish: it ended before its video was there, and can go on.
        frames: how many frames `video` has.
        notices: (code, values), each shown as `notice.<code>`.
        elapsed: seconds since the job began, when it ended its whole time; None while it waits.
        ended: seconds of a monotonic clock when it ended; 0 before, and for a job of an earlier run.
        output: the folder that the video's files go to.
    """

    id: str
    name: str
    prompt: str
    state: JobState
    stopping: bool
    progress: Progress
    has_thumbnail: bool
    preview_number: int
    video: Path | None
    frames: int
    seed: int
    failure: Failure | None
    notices: tuple[tuple[str, dict[str, object]], ...]
    elapsed: float | None
    request: GenerationRequest
    output: Path
    ended: float = 0.0
    can_finish: bool = False

    @property
    def can_finish_short(self) -> bool:
        """Whether the closing section would leave sections out."""
        return self.can_finish and 0 < self.progress.sections_done < self.progress.sections - 1


class Clock(Protocol):
    """Tells how long a job still takes. It gets every event from Planned to the last, with the time of it."""

    def event(self, now: float, event: Event) -> None:
        """Take note of an event at `now` (seconds of a monotonic clock)."""

    def seconds_left(self, now: float) -> float | None:
        """Seconds that the job still takes, None where that cannot be said."""


MakeClock = Callable[[GenerationRequest, Planned], Clock]


class Job:
    """A job that waits, runs or has ended. All times are seconds of one monotonic clock."""

    def __init__(
        self, spec: JobSpec, thumbnail: bytes, make_clock: MakeClock | None = None, place: int = 0
    ) -> None:
        self.spec = spec
        self.thumbnail = thumbnail
        self.place = place
        """In the queue, as it is written down: the smallest is made first."""
        self.stop = threading.Event()
        self.state: JobState = "waiting"
        self.outcome: JobState | None = None
        """How the runner said that it ends; the state changes only when the runner has cleaned up."""
        self.preview: LatentPreview | None = None
        self.can_finish = False
        self._progress = Progress()
        self._video: Path | None = None
        self._frames = self._frames_done = 0
        self._failure: Failure | None = None
        self._notices: list[tuple[str, dict[str, object]]] = []
        self._started = self._ended = 0.0
        self._make_clock = make_clock
        self._clock: Clock | None = None

    def recall(self, sections_done: int, video: Path | None) -> None:
        """An earlier run of this job has made so many sections, and a video of them."""
        plan = make_plan(self.spec.request)
        sections = len(plan.sections)
        frames = kept_frames(plan.size, sections_done)
        self._progress = replace(
            self._progress, sections=sections, sections_done=min(sections_done, sections)
        )
        self._video, self._frames = video, frames if video is not None else 0

    def interrupt(self) -> None:
        """It was begun, and goes on only when somebody wishes it."""
        self.state, self.can_finish = "interrupted", True

    def begin(self, now: float) -> None:
        self.state = "running"
        self._started = now

    def take(self, event: Event, now: float) -> None:
        """Take note of what the runner tells."""
        match event:
            case Planned():
                self._plan(event)
            case StageStarted(stage=stage, section=section):
                self._start_stage(stage, section)
            case StageProgress(fraction=fraction):
                self._progress = replace(self._progress, stage_fraction=fraction)
            case Notice(code=code, values=values):
                self._notify(code, values)
            case StepDone():
                self._step(event)
            case SectionDone(section=section):
                self._take_sections(section + 1, event)
            case Resumed(sections_done=done):
                self._take_sections(done, event)
            case Finished():
                self._video, self._frames, self.outcome = event.video, event.frames, "done"
                self._progress = replace(self._progress, fraction=1.0)
            case Stopped(kept=kept):
                self.outcome = "stopped"
                self._keep(kept)
        self._ask(lambda clock: clock.event(now, event))

    @property
    def sections_done(self) -> int:
        """How many of its sections are kept."""
        return self._progress.sections_done

    def go_on_behind(self, earlier: "Job") -> None:
        """Show what an earlier run of this job has made until this one has something to show."""
        self._video, self._frames = earlier._video, earlier._frames
        done, sections = earlier._progress.sections_done, earlier._progress.sections
        self._progress = replace(self._progress, sections_done=done, sections=sections)

    def end(self, now: float, failure: Failure | None, can_go_on: bool = False) -> None:
        """The runner is through: with the outcome that it told, or with a failure."""
        self._ended = now
        self._failure = failure
        if failure is not None:
            self.outcome = "failed"
            self._keep(self.spec.unfinished_video if self.spec.unfinished_video.exists() else None)
        assert self.outcome is not None
        self.can_finish = can_go_on
        self.state = self.outcome
        self._progress = replace(self._progress, stage=None)
        self.preview = self._clock = None

    def view(self, now: float) -> JobView:
        """The job as it is at `now`."""
        is_running = self.state == "running"
        seconds_left = self._ask(lambda clock: clock.seconds_left(now)) if is_running else None
        request = self.spec.request
        assert request.seed is not None
        return JobView(
            id=self.spec.id,
            name=self.spec.name,
            prompt=request.prompt,
            state=self.state,
            stopping=is_running and self.stop.is_set(),
            progress=replace(self._progress, seconds_left=seconds_left),
            has_thumbnail=bool(self.thumbnail),
            preview_number=self.preview.number if self.preview else 0,
            video=self._video,
            frames=self._frames,
            seed=request.seed,
            failure=self._failure,
            notices=tuple(self._notices),
            elapsed=self._elapsed(now),
            ended=self._ended,
            request=request,
            output=self.spec.folder,
            can_finish=self.can_finish,
        )

    def _elapsed(self, now: float) -> float | None:
        if self.state in ("waiting", "interrupted"):
            return None
        return (now if self.state == "running" else self._ended) - self._started

    def _plan(self, event: Planned) -> None:
        self._progress = replace(
            self._progress,
            sections=len(event.plan.sections),
            steps=self.spec.request.steps,
            frames=event.plan.pixel_frames,
            seconds=event.plan.seconds,
            width=event.width,
            height=event.height,
        )
        make_clock = self._make_clock
        if make_clock is not None:
            self._clock = self._guarded(lambda: make_clock(self.spec.request, event))

    def _start_stage(self, stage: str, section: int | None) -> None:
        self._progress = replace(self._progress, stage=stage, stage_fraction=None)
        if stage == "sampling" and section is not None:
            self._progress = replace(self._progress, section=section, step=0)

    def _step(self, event: StepDone) -> None:
        self._progress = replace(
            self._progress,
            section=event.section,
            sections=event.sections,
            step=event.step,
            steps=event.steps,
        )
        self._advance(event.section, event.step)
        self.preview = LatentPreview(self.preview.number + 1 if self.preview else 1, event.preview)

    def _take_sections(self, done: int, event: SectionDone | Resumed) -> None:
        """So many sections are kept now."""
        self._frames_done = event.pixel_frames
        if event.video is not None:
            self._video, self._frames = event.video, event.pixel_frames
        self._advance(done, 0)
        self._progress = replace(self._progress, sections_done=done)

    def _advance(self, sections_done: int, steps_done: int) -> None:
        progress = self._progress
        per_section = progress.steps + DECODING_STEPS
        fraction = (sections_done * per_section + steps_done) / (
            progress.sections * per_section + SAVING_STEPS
        )
        self._progress = replace(progress, fraction=min(max(fraction, progress.fraction), 1.0))

    def _notify(self, code: str, values: dict[str, object]) -> None:
        if (code, values) not in self._notices and len(self._notices) < MAX_NOTICES:
            self._notices.append((code, dict(values)))

    def _keep(self, kept: Path | None) -> None:
        """Show the video that was made of what is finished, if there is one."""
        if kept is not None:
            self._video, self._frames = kept, self._frames_done

    def _ask(self, question: Callable[[Clock], _T]) -> _T | None:
        clock = self._clock
        return self._guarded(lambda: question(clock)) if clock is not None else None

    def _guarded(self, action: Callable[[], _T]) -> _T | None:
        """The time left is an ornament: no error in it may end a job of hours. It is left out then."""
        try:
            return action()
        except Exception:
            logger.warning("the time left cannot be told", exc_info=True)
            self._clock = None
            return None

"""Short videos for a report: the steps that TeaCache computed, the seconds of each stage, the frames."""

import math
import shutil
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..encoding.embedding_cache import EmbeddingCache
from ..errors import StopRequested
from ..events import Event, Notice, Planned, SectionDone, StageStarted, StepDone, Stopped
from ..job.output import Target
from ..job.section_files import section_file
from ..models.loading import ModelLoader
from ..pipeline import generate
from ..request import GenerationRequest
from .machine import reset_vram_peak, vram_peak
from .steps import Step, Values

COMPUTED, SKIPPED = "x", "."
LARGEST = 255


@dataclass
class Stopwatch:
    """Adds up the seconds of the stages, which begin with their events."""

    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str | None = None
    _begin: float = 0.0

    def see(self, event: Event | None) -> None:
        """End the stage that was running where another one begins, and at the end, which is None."""
        if event is not None and not isinstance(event, StageStarted):
            return
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0) + now - self._begin, 2)
        self._stage, self._begin = None if event is None else event.stage, now


def make_video(
    request: GenerationRequest,
    loader: ModelLoader,
    work: Path,
    cache: EmbeddingCache,
    stop: threading.Event,
    values: Values,
) -> Generator[Step, None, np.ndarray]:
    """Make a video of one section as a job does; returns its frames `(n, height, width, 3)` uint8.

    Raises StopRequested where `stop` was set, and the errors of `pipeline.generate`.
    """
    target = Target(work / "video", "video", work=work / "job")
    shutil.rmtree(target.working_folder, ignore_errors=True)
    watch, frames = Stopwatch(), np.empty((0, 0, 0, 3), np.uint8)
    values["steps"], values["seconds by stage"] = "", watch.seconds
    reset_vram_peak(loader.compute.device)
    for event in generate(request, target, loader, cache, stop):
        watch.see(event)
        match event:
            case Planned(width=width, height=height):
                values["size"] = f"{width}x{height}"
            case StepDone(computed=computed):
                values["steps"] += COMPUTED if computed else SKIPPED
                yield Step()
            case SectionDone(pixel_frames=count):  # its files go with the job
                path = section_file(target.working_folder, 0, "frames")
                numbers = np.fromfile(path, np.uint8, count * height * width * 3)
                frames = numbers.reshape(count, height, width, 3)
            case Notice(code=code, values=told):
                values.setdefault("notices", []).append(f"{code} {told}")
            case Stopped():
                raise StopRequested
    watch.see(None)
    values |= vram_peak(loader.compute.device)
    values["steps computed"] = values["steps"].count(COMPUTED)
    return frames


def psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two videos uint8 in decibels; equal ones have infinity."""
    squares = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(frames, others, strict=True)]
    error = float(np.mean(squares))
    return 10 * math.log10(LARGEST**2 / error) if error else math.inf

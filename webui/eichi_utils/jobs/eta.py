"""The remaining time of a job: from its own steps as soon as there are some, from an earlier job before.

Fed with the engine's events and the time of each; reads no clock. The speed of each machine in its last job
is kept in a file. A machine is any text that names what the speed depends on: the GPU and the models.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median_low

from diffusers_helper import events
from diffusers_helper.errors import MachineError
from diffusers_helper.plan import Plan
from diffusers_helper.request import GenerationRequest

from ..settings.json_file import JsonFile

logger = logging.getLogger(__name__)

MIN_STEPS = 2
"""Computed steps from which on they count: the first one may read files that are not in memory yet."""
RECENT = 9
"""Steps, and sections, whose median counts: one that a sleeping computer made long changes nothing."""
SHARE_WEIGHT = 4
"""Steps of this job that weigh as much as the share of computed steps in earlier ones."""


@dataclass(frozen=True)
class JobSize:
    """The work in a job: steps of a section, latent values that go through the transformer in a step, and
    those that are decoded after each section. `skips_steps`: TeaCache may skip some."""

    steps: int
    step_values: int
    decoded_values: tuple[int, ...]
    skips_steps: bool


def job_size(request: GenerationRequest, plan: Plan, height: int, width: int) -> JobSize:
    """Return the work for a video of `height` x `width` pixels."""
    values = (height // 8) * (width // 8)
    decoded = tuple(section.decoded_latent_frames * values for section in plan.sections)
    passes = 1 if request.guidance_scale == 1 else 2
    return JobSize(request.steps, plan.size.latent_frames * values * passes, decoded, request.teacache)


@dataclass(frozen=True)
class Speed:
    """The seconds that a machine takes: `overhead` from a job's plan to its first section (loading,
    compiling, prompt and pictures), all others for a latent value. `computed_share` of the steps are computed
    where TeaCache may skip some."""

    overhead: float
    computed_step: float
    decoding: float
    saving: float
    skipped_step: float = 0.0
    computed_share: float = 0.5

    def parts(self, size: JobSize) -> list[float]:
        """Return the seconds of a job's parts: the overhead, each section's steps and decoding, saving."""
        share = max(self.computed_share, min(2 / size.steps, 1)) if size.skips_steps else 1.0
        step = (share * self.computed_step + (1 - share) * self.skipped_step) * size.step_values
        parts = [self.overhead]
        for values in size.decoded_values:
            parts += [step] * size.steps + [self.decoding * values]
        return [*parts, self.saving * sum(size.decoded_values)]


TYPICAL = Speed(0.0, computed_step=4e-5, decoding=4e-5, saving=1e-5, skipped_step=1e-6)
"""The real models on a GPU. A job's first steps show how much slower or faster this machine is."""
TYPICAL_DEMO = Speed(0.0, computed_step=4e-4, decoding=4e-3, saving=1.5e-4, skipped_step=3e-5)
"""The demo's models on a CPU: a small transformer, but a decoder of full size."""


@dataclass(frozen=True)
class Eta:
    """The remaining time of a job under way. Times are seconds of one monotonic clock.

    Attributes:
        known: the speed of an earlier job, or a typical one.
        learn: called with the speed of a finished job.
        mark: the time at which the present part of the work began; at first, when the job was planned.
        part: the present part, an index of `Speed.parts`; `first` is that of the part after the overhead.
        measured: the values of `Speed`'s figures, one for each part that is done.
    """

    size: JobSize
    known: Speed = TYPICAL
    learn: Callable[[Speed], None] | None = None
    mark: float = 0.0
    part: int = 0
    first: int = 1
    measured: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def apply(self, event: events.Event, now: float) -> "Eta":
        """Return the remaining time after an event at `now`."""
        size = self.size
        match event:
            case events.Resumed(sections_done=done):
                return replace(self, first=self._part(done))
            case events.StageStarted(stage="sampling" | "decoding" as stage, section=int(section)):
                begun = self if self.part else self._measure("overhead", 1, now)
                return replace(begun, part=self._part(section, size.steps * (stage == "decoding")), mark=now)
            case events.StepDone(section=section, step=step, computed=computed):
                figure = "computed_step" if computed else "skipped_step"
                return replace(self._measure(figure, size.step_values, now), part=self._part(section, step))
            case events.SectionDone(section=section):
                after = self._measure("decoding", size.decoded_values[section], now)
                return replace(after, part=self._part(section + 1))
            case events.Finished():
                return self._measure("saving", sum(size.decoded_values), now)
        return self

    def _part(self, section: int, step: int = 0) -> int:
        return 1 + section * (self.size.steps + 1) + step

    def _measure(self, figure: str, values: int, now: float) -> "Eta":
        measured = (*self.measured.get(figure, ()), (now - self.mark) / values)
        return replace(self, measured=self.measured | {figure: measured}, mark=now)

    def _count(self, figure: str) -> int:
        return len(self.measured.get(figure, ()))

    @property
    def speed(self) -> Speed:
        """The job's own speed, completed by the one that is known."""
        known, computed = self.known, self._count("computed_step")
        own = {figure: median_low(values[-RECENT:]) for figure, values in self.measured.items()}
        if computed < MIN_STEPS:
            own.pop("computed_step", None)
        elif known in (TYPICAL, TYPICAL_DEMO):
            scale = own["computed_step"] / known.computed_step
            others = ("decoding", "saving", "skipped_step")
            known = replace(known, **{figure: scale * getattr(known, figure) for figure in others})
        if self.size.skips_steps:
            seen = computed + self._count("skipped_step") + SHARE_WEIGHT
            own["computed_share"] = (computed + SHARE_WEIGHT * known.computed_share) / seen
        return replace(known, **own)

    def remember(self) -> None:
        """Remember the speed of this job, which has finished, for the next one."""
        if self.learn is not None and self._count("computed_step") >= MIN_STEPS:
            self.learn(self.speed)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds from `now` to the end; None where they cannot be known yet.

        Work that is late is expected to need as long again as it is late.
        """
        if self.known in (TYPICAL, TYPICAL_DEMO) and self._count("computed_step") < MIN_STEPS:
            return None
        present, rest, _whole = self._seconds()
        return rest + abs(present - (now - self.mark))

    def fraction(self, now: float) -> float:
        """Return the share of the job that is done at `now`, sections of earlier runs among it."""
        present, rest, whole = self._seconds()
        return 1 - (rest + max(present - (now - self.mark), 0)) / whole

    def _seconds(self) -> tuple[float, float, float]:
        """The expected seconds of the present part, of all that follows, and of the whole job."""
        parts = self.speed.parts(self.size)
        return parts[self.part], sum(parts[self.part + 1 if self.part else self.first :]), sum(parts)


class SpeedHistory:
    """The speeds in one JSON file. Safe to use from any thread: values are replaced, never changed."""

    def __init__(self, path: Path) -> None:
        self._file = JsonFile(path)
        self._speeds: dict[str, Speed] = {}
        try:
            kept = (self._file.value or {})["machines"]
            self._speeds = {machine: _to_speed(values) for machine, values in kept.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            logger.info("no speed of this machine is known: %s", error)

    def speed(self, machine: str | None) -> Speed | None:
        """Return the speed of the last job on this machine; None where none has finished."""
        return self._speeds.get(machine) if machine is not None else None

    def start_eta(self, machine: str | None, size: JobSize, typical: Speed = TYPICAL) -> Eta:
        """Return the remaining time of a job that begins; when it has finished, its speed is remembered.

        Where no job has finished on this machine, `typical` counts until the job has a speed of its own.
        """
        known = self.speed(machine)
        learn = partial(self.learn, machine) if machine is not None else None
        return Eta(size, known or typical, learn)

    def learn(self, machine: str, speed: Speed) -> None:
        """Remember the speed of a finished job. A file that cannot be written is logged, no more."""
        self._speeds = self._speeds | {machine: speed}
        try:
            self._file.write({"machines": {name: asdict(known) for name, known in self._speeds.items()}})
        except MachineError as error:
            logger.warning("the speed of this machine is not kept: %s", error)


def _to_speed(kept: dict[str, float]) -> Speed:
    values = {key: float(kept[key]) for key in Speed.__match_args__ if kept.get(key) is not None}
    speed = Speed(**values)
    if not all(0 <= value < math.inf for value in values.values()) or not speed.computed_step:
        raise ValueError("not seconds")
    return speed

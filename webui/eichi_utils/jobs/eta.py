"""The remaining time of a job: from its own steps as soon as there are some, from an earlier job before.

Fed with the engine's events and the time of each; reads no clock. The speed of each machine in its last job
is kept in a file. A machine is any text that names what the speed depends on: the GPU and the models.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any

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
Part = tuple[str, int]
"""A part of a job's work: the figure of `Speed` that it takes, and the latent values to be computed."""


def job_parts(request: GenerationRequest, plan: Plan, height: int, width: int) -> list[Part]:
    """Return the parts of a job in order; its video has `height` x `width` pixels."""
    values = (height // 8) * (width // 8)
    passes = 1 if request.guidance_scale == 1 else 2
    step = "teacache_step" if request.teacache and request.steps > 2 else "computed_step"
    steps = [(step, plan.size.latent_frames * values * passes)] * request.steps
    decoded = [section.decoded_latent_frames * values for section in plan.sections]
    sections = (part for count in decoded for part in (*steps, ("decoding", count)))
    return [("overhead", 1), *sections, ("saving", sum(decoded))]


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

    def seconds(self, parts: list[Part]) -> list[float]:
        """Return the seconds of each part."""
        mean = self.computed_share * self.computed_step + (1 - self.computed_share) * self.skipped_step
        figures = asdict(self) | {"teacache_step": mean}
        return [figures[figure] * values for figure, values in parts]


TYPICAL = Speed(0.0, computed_step=4e-5, decoding=4e-5, saving=1e-5)
"""The real models on a GPU. A job's first steps show how much slower or faster this machine is."""
TYPICAL_DEMO = Speed(0.0, computed_step=4e-4, decoding=4e-3, saving=1.5e-4)
"""The demo's models on a CPU: a small transformer, but a decoder of full size."""


@dataclass(frozen=True)
class Eta:
    """The remaining time of a job under way. Times are seconds of one monotonic clock.

    Attributes:
        known: the speed of an earlier job, or a typical one.
        learn: called with the speed of a finished job.
        mark: the time at which the present part of the work began; at first, when the job was planned.
        present: the index of the present part; `first` is that of the one after the overhead.
        measured: the values of `Speed`'s figures, one for each part that is done.
    """

    parts: list[Part]
    known: Speed = TYPICAL
    learn: Callable[[Speed], None] = lambda _: None
    mark: float = 0.0
    present: int = 0
    first: int = 1
    measured: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def apply(self, event: events.Event, now: float) -> "Eta":
        """Return the remaining time after an event at `now`."""
        ends = [0, *(index for index, (figure, _) in enumerate(self.parts) if figure == "decoding")]
        (figure, values), following = self.parts[self.present], min(self.present + 1, len(self.parts) - 1)
        match event:
            case events.Resumed(sections_done=done):
                return replace(self, first=ends[done] + 1)
            case events.StageStarted(stage="sampling" | "decoding" as stage, section=int(section)):
                following = ends[section] + 1 if stage == "sampling" else ends[section + 1]
                if figure != "overhead":
                    return replace(self, present=following, mark=now)
            case events.StepDone(computed=computed):
                figure = "computed_step" if computed else "skipped_step"
            case events.SectionDone() | events.Finished():
                pass
            case _:
                return self
        measured = self.measured | {figure: (*self.measured.get(figure, ()), (now - self.mark) / values)}
        return replace(self, present=following, mark=now, measured=measured)

    @property
    def speed(self) -> Speed:
        """The job's own speed, completed by the one that is known."""
        known = self.known
        own = {name: median_low(values[-RECENT:]) for name, values in self.measured.items()}
        computed, skipped = (len(self.measured.get(name, ())) for name in ("computed_step", "skipped_step"))
        if computed < MIN_STEPS:
            own.pop("computed_step", None)
        elif known in (TYPICAL, TYPICAL_DEMO):
            scale = own["computed_step"] / known.computed_step
            known = replace(known, decoding=scale * known.decoding, saving=scale * known.saving)
        if self.parts[1][0] == "teacache_step":
            share = computed + SHARE_WEIGHT * known.computed_share
            own["computed_share"] = share / (computed + skipped + SHARE_WEIGHT)
        return replace(known, **own)

    def remember(self) -> None:
        """Remember the speed of this job, which has finished, for the next one."""
        if len(self.measured.get("computed_step", ())) >= MIN_STEPS:
            most = 4 * self.known.overhead or self.speed.overhead  # it may have slept while it loaded
            self.learn(replace(self.speed, overhead=min(self.speed.overhead, most)))

    def at(self, now: float) -> tuple[float, float | None]:
        """Return the share of the job that is done at `now`, and the seconds left; None if not known yet.

        Sections of earlier runs are done. Work that is late is expected to need as long again as it is late.
        """
        seconds = self.speed.seconds(self.parts)
        rest = sum(seconds[max(self.present + 1, self.first) :])
        left = seconds[self.present] - (now - self.mark)
        is_known = self.speed.computed_step not in (TYPICAL.computed_step, TYPICAL_DEMO.computed_step)
        return 1 - (rest + max(left, 0)) / (sum(seconds) or 1), rest + abs(left) if is_known else None


class SpeedHistory(JsonFile):
    """The speeds by machine in one JSON file. Safe to use from any thread: `speeds` are never changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _parse)
        self.speeds: dict[str, Speed] = self.value

    def learn(self, machine: str, speed: Speed) -> None:
        """Remember the speed of a finished job. A file that cannot be written is logged, no more."""
        self.speeds = self.speeds | {machine: speed}
        try:
            self.write({"machines": {name: asdict(known) for name, known in self.speeds.items()}})
        except MachineError as error:
            logger.warning("the speed of this machine is not kept: %s", error)


def _parse(content: dict[str, Any]) -> dict[str, Speed]:
    speeds, names = {}, Speed.__match_args__
    for machine, kept in content["machines"].items():
        speed = Speed(**{name: kept[name] for name in names if kept.get(name) is not None})
        if not all(0 <= figure < 1e9 for figure in astuple(speed)) or not speed.computed_step:
            raise ValueError("not seconds")
        speeds[machine] = speed
    return speeds

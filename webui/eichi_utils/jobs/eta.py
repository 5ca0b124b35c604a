"""The remaining time of a job: from its own steps as soon as there are some, from an earlier job before.

Fed with the engine's events and the time of each; reads no clock. The speed of each machine in its last job
is kept in a file. A machine is any text that names what the speed depends on: the GPU and the models.
"""

import logging
import re
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
"""Computed steps from which on they count: the first one may compile, or read files from a disk."""
NAMED_LEVELS = 3
"""Levels of the models' folder by which it is known: the folder of all models, and two of a repository."""
RECENT = 9
"""Steps, and sections, whose median counts: one that a sleeping computer made long changes nothing."""
SHARE_WEIGHT = 4
"""Steps of this job that weigh as much as the share of computed steps in earlier ones."""
LATE, LATE_GUESS = 0.05, 0.3
"""The share of the seconds spent on a part that is at least still expected, by its measured speed and by a
guessed one. So nothing that takes longer than expected is about to end all the time."""
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
    computed_share: float = 0.4

    def seconds(self, parts: list[Part]) -> list[float]:
        """Return the seconds of each part."""
        mean = self.computed_share * self.computed_step + (1 - self.computed_share) * self.skipped_step
        figures = asdict(self) | {"teacache_step": mean}
        return [figures[figure] * values for figure, values in parts]


TYPICAL = Speed(0.0, computed_step=1.6e-5, decoding=2.2e-5, saving=9e-6)
"""The real models on a GPU. A job's first steps show how much slower or faster this machine is."""
TYPICAL_DEMO = Speed(0.0, computed_step=1.5e-4, decoding=1.4e-3, saving=1.5e-4)
"""The demo's models on a CPU: a small transformer, but a decoder of full size."""


@dataclass(frozen=True)
class Eta:
    """The remaining time of a job under way. Times are seconds of one monotonic clock.

    Attributes:
        known: the speed of an earlier job, or a typical one.
        learn: called with the speed of a finished job.
        mark: the time at which the present part of the work began; at first, when the job was planned.
        present: the index of the present part; `first` is that of the one after the overhead.
        measured: the values of `Speed`'s figures, one for each part that is done. `gap`: the steps from one
            that TeaCache has computed to the next, but for a section's last, which is computed anyway.
        skipped: the steps since the last computed one.
        steps: those of a section.
        reported: the seconds of the whole present part, by what it has reported of itself.
    """

    parts: list[Part]
    known: Speed = TYPICAL
    learn: Callable[[Speed], None] = lambda _: None
    mark: float = 0.0
    present: int = 0
    first: int = 1
    measured: dict[str, tuple[float, ...]] = field(default_factory=dict)
    skipped: int = 0
    steps: int = 0
    reported: float | None = None

    def apply(self, event: events.Event, now: float) -> "Eta":
        """Return the remaining time after an event at `now`."""
        ends = [0, *(index for index, (figure, _) in enumerate(self.parts) if figure == "decoding")]
        (figure, values), following = self.parts[self.present], min(self.present + 1, len(self.parts) - 1)
        eta = replace(self, reported=None)
        match event:
            case events.Resumed(sections_done=done):
                return replace(self, first=ends[done] + 1)
            case events.StageStarted(stage="sampling" | "decoding" as stage, section=int(section)):
                following = ends[section] + 1 if stage == "sampling" else ends[section + 1]
                if figure != "overhead":
                    return replace(eta, present=following, mark=now)
            case events.StageStarted(stage="compiling") if figure == "overhead":
                pass  # once after a start: no part of what another job takes
            case events.StageProgress(fraction=fraction) if figure == "decoding" and fraction:
                return replace(self, reported=(now - self.mark) / fraction)
            case events.StepDone(computed=computed):
                figure, eta = "computed_step" if computed else "skipped_step", eta._count_step(event)
            case events.SectionDone() | events.Finished():
                pass
            case _:
                return self
        return replace(eta._measure(figure, (now - self.mark) / values), present=following, mark=now)

    def _measure(self, figure: str, value: float) -> "Eta":
        return replace(self, measured=self.measured | {figure: (*self.measured.get(figure, ()), value)})

    def _count_step(self, event: events.StepDone) -> "Eta":
        gap = self.skipped + 1
        counted = replace(self, skipped=0 if event.computed else gap, steps=event.steps)
        return counted._measure("gap", gap) if event.computed and 1 < event.step < event.steps else counted

    @property
    def is_known(self) -> bool:
        """True as soon as an earlier job, or this one, has shown how fast this machine is."""
        is_typical = self.known in (TYPICAL, TYPICAL_DEMO)
        return not is_typical or len(self.measured.get("computed_step", ())) >= MIN_STEPS

    @property
    def speed(self) -> Speed:
        """The job's own speed, completed by the one that is known."""
        known, names = self.known, Speed.__match_args__
        own = {name: median_low(v[-RECENT:]) for name, v in self.measured.items() if name in names}
        if len(self.measured.get("computed_step", ())) < MIN_STEPS:
            own.pop("computed_step", None)
        elif known in (TYPICAL, TYPICAL_DEMO):
            scale = own["computed_step"] / known.computed_step
            saving = scale**0.5 * known.saving  # by the processor and the disk
            known = replace(known, decoding=scale * known.decoding, saving=saving)
        if self.reported is not None:
            own.setdefault("decoding", self.reported / self.parts[self.present][1])
        if (gaps := self.measured.get("gap")) and self.parts[1][0] == "teacache_step":
            share = (2 + (self.steps - 2) * len(gaps) / sum(gaps)) / self.steps
            weighted = sum(gaps) * share + SHARE_WEIGHT * known.computed_share
            own["computed_share"] = weighted / (sum(gaps) + SHARE_WEIGHT)
        return replace(known, **own)

    def remember(self) -> None:
        """Remember the speed of this job, which has finished, for the next one."""
        computed, skipped = (len(self.measured.get(name, ())) for name in ("computed_step", "skipped_step"))
        if computed >= MIN_STEPS:
            own = self.speed
            most = 4 * self.known.overhead or own.overhead  # it may have slept while it loaded
            if self.parts[1][0] == "teacache_step":
                own = replace(own, computed_share=computed / (computed + skipped))
            self.learn(replace(own, overhead=min(own.overhead, most)))

    def at(self, now: float) -> tuple[float, float | None]:
        """Return the share of the job that is done at `now`, and the seconds left; None if not known yet.

        Sections of earlier runs are done. Loading is a part of the work only where it is known how long it
        takes: before, it would pass for all the time that a first job needs.
        """
        speed = self.speed
        if self.known in (TYPICAL, TYPICAL_DEMO):
            speed = replace(speed, overhead=0.0)
        seconds = speed.seconds(self.parts)
        rest = sum(seconds[max(self.present + 1, self.first) :])
        left = rest + self._left_of_present(seconds[self.present], now - self.mark)
        total = sum(seconds)
        return (1 - min(left / total, 1) if total else 0.0), left if self.is_known else None

    def _left_of_present(self, expected: float, spent: float) -> float:
        """Return the seconds left of the present part: some, as long as it has not ended."""
        figure, _ = self.parts[self.present]
        is_guessed = self.known in (TYPICAL, TYPICAL_DEMO) and figure not in self.measured
        if self.reported is not None:
            expected, is_guessed = self.reported, False
        return max(expected - spent, (LATE_GUESS if is_guessed else LATE) * spent)


class SpeedHistory(JsonFile):
    """The speeds by machine in one JSON file. Safe to use from any thread: `speeds` are never changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _parse)
        self.speeds: dict[str, Speed] = self.value

    def find(self, machine: str) -> Speed | None:
        """Return the speed of a machine, else the newest of the same one before its models were moved."""
        same = [
            speed for name, speed in self.speeds.items() if _without_place(name) == _without_place(machine)
        ]
        return self.speeds.get(machine, same[-1] if same else None)

    def learn(self, machine: str, speed: Speed) -> None:
        """Remember the speed of a finished job. A file that cannot be written is logged, no more."""
        self.speeds = self.speeds | {machine: speed}
        try:
            self.write({"machines": {name: asdict(known) for name, known in self.speeds.items()}})
        except MachineError as error:
            logger.warning("the speed of this machine is not kept: %s", error)


def _without_place(machine: str) -> tuple[str, list[str]]:
    """Return the GPU, and of the models' folder the last levels, which a move does not change."""
    name, _, folder = machine.partition(": ")
    return name, re.split(r"[/\\]", folder)[-NAMED_LEVELS:]


def _parse(content: dict[str, Any]) -> dict[str, Speed]:
    speeds, names = {}, Speed.__match_args__
    for machine, kept in content["machines"].items():
        speed = Speed(**{name: kept[name] for name in names if kept.get(name) is not None})
        if not all(0 <= figure < 1e9 for figure in astuple(speed)) or not speed.computed_step:
            raise ValueError("not seconds")
        speeds[machine] = speed
    return speeds

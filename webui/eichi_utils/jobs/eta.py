"""The remaining time of a job: from its own steps as soon as there are some, from earlier jobs before.

Fed with the engine's events and the time of each; reads no clock and no file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median_low

from diffusers_helper import events
from diffusers_helper.plan import Plan, decoded_latent_frames
from diffusers_helper.request import GenerationRequest

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
    decoded = tuple(decoded_latent_frames(section, plan.size) * values for section in plan.sections)
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

    def step_seconds(self, size: JobSize) -> float:
        """Return the average length of a step."""
        share = max(self.computed_share, min(2 / size.steps, 1)) if size.skips_steps else 1.0
        return (share * self.computed_step + (1 - share) * self.skipped_step) * size.step_values

    def seconds(self, size: JobSize, section: int = 0, step: int = 0) -> float:
        """Return the length of a job from a section's step on, without the overhead."""
        steps = (len(size.decoded_values) - section) * size.steps - step
        decoding = self.decoding * sum(size.decoded_values[section:])
        return steps * self.step_seconds(size) + decoding + self.saving * sum(size.decoded_values)


TYPICAL = Speed(0.0, computed_step=4e-5, decoding=4e-5, saving=1e-5, skipped_step=1e-6)
"""The real models on a GPU. A job's first steps show how much slower or faster this machine is."""
TYPICAL_DEMO = Speed(0.0, computed_step=4e-4, decoding=4e-3, saving=1.5e-4, skipped_step=3e-5)
"""The demo's models on a CPU: a small transformer, but a decoder of full size."""


@dataclass(frozen=True)
class Eta:
    """The remaining time of a job under way. Times are seconds of one monotonic clock.

    Attributes:
        known: the speed of earlier jobs; with `is_typical`, of jobs on other machines.
        mark: the time at which the present part of the work began; at first, when the job was planned.
        measured: the recent values of figures of `Speed`.
        learn: called with the speed of a finished job.
    """

    size: JobSize
    known: Speed = TYPICAL
    is_typical: bool = True
    learn: Callable[[Speed], None] | None = None
    mark: float = 0.0
    stage: str = "loading"
    section: int = 0
    step: int = 0
    computed: int = 0
    steps: int = 0
    measured: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def apply(self, event: events.Event, now: float) -> "Eta":
        """Return the remaining time after an event at `now`."""
        decoded = self.size.decoded_values
        match event:
            case events.Resumed(sections_done=done):
                return replace(self, section=done)
            case events.StageStarted(stage="sampling" | "decoding" as stage, section=int(section)):
                begun = self._measure("overhead", 1, now) if self.stage == "loading" else self
                step = 0 if stage == "sampling" else self.size.steps
                return replace(begun, stage=stage, section=section, step=step, mark=now)
            case events.StepDone(computed=computed, step=step):
                figure = "computed_step" if computed else "skipped_step"
                after = self._measure(figure, self.size.step_values, now)
                return replace(after, step=step, computed=self.computed + computed, steps=self.steps + 1)
            case events.SectionDone(section=section):
                after = self._measure("decoding", decoded[section], now)
                is_last = section + 1 == len(decoded)
                return replace(after, stage="saving" if is_last else "sampling", section=section + 1, step=0)
            case events.Finished():
                return self._measure("saving", sum(decoded), now)
        return self

    def _measure(self, figure: str, values: int, now: float) -> "Eta":
        recent = (*self.measured.get(figure, ()), (now - self.mark) / values)[-RECENT:]
        return replace(self, measured=self.measured | {figure: recent}, mark=now)

    @property
    def speed(self) -> Speed:
        """The job's own speed, completed by the one that is known."""
        known = self.known
        own = {figure: median_low(values) for figure, values in self.measured.items()}
        if self.computed < MIN_STEPS:
            own.pop("computed_step", None)
        elif self.is_typical:
            scale = own["computed_step"] / known.computed_step
            others = ("decoding", "saving", "skipped_step")
            known = replace(known, **{figure: scale * getattr(known, figure) for figure in others})
        if self.size.skips_steps:
            seen = self.computed + SHARE_WEIGHT * self.known.computed_share
            own["computed_share"] = seen / (self.steps + SHARE_WEIGHT)
        return replace(known, **own)

    def remember(self) -> None:
        """Remember the speed of this job, which has finished, for the next one."""
        if self.learn is not None and self.computed >= MIN_STEPS:
            self.learn(self.speed)

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds from `now` to the end; None where they cannot be known yet.

        Work that is late is expected to need as long again as it is late.
        """
        part, rest = self._ahead()
        is_known = self.computed >= MIN_STEPS or not self.is_typical
        return rest + abs(part - (now - self.mark)) if is_known else None

    def fraction(self, now: float) -> float:
        """Return the share of the job that is done at `now`, sections of earlier runs among it."""
        part, rest = self._ahead()
        whole = max(self.speed.overhead + self.speed.seconds(self.size), 1e-9)
        return min(max(1 - (rest + max(part - (now - self.mark), 0)) / whole, 0), 1)

    def _ahead(self) -> tuple[float, float]:
        """The expected seconds of the present part of the work, and of all that follows."""
        speed, size = self.speed, self.size
        ahead = speed.seconds(size, self.section, self.step)
        decoding = speed.decoding * sum(size.decoded_values[self.section : self.section + 1])
        parts = {"sampling": speed.step_seconds(size), "decoding": decoding, "saving": ahead}
        if self.stage == "loading":
            return speed.overhead, ahead
        return parts[self.stage], max(ahead - parts[self.stage], 0)

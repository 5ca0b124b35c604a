"""How long a job still takes: from earlier jobs before it has a pace of its own, from that as soon as it has.

Fed with the engine's events and the time of each; looks at no clock and no file.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median_low

from diffusers_helper.events import Event, Finished, Resumed, SectionDone, StageStarted, StepDone

DECODING_STEPS = 2
"""Computed steps that decoding a window is taken for until one was decoded."""
MAX_DECODING_STEPS, LONG_DECODING = 10, 60.0
"""A single window that took longer than so many computed steps, and than so many seconds, is not believed:
the computer may have been asleep. Two of them are."""
OWN_STEPS, FIRST_OWN_STEPS = 3, 2
"""Computed steps after which a job's own pace counts: with, and without, earlier jobs to go by. The first
step reads files that are not in memory yet."""
RECENT = 200
"""So many of the last steps make up the pace."""


@dataclass(frozen=True)
class Work:
    """How much there is to do.

    Attributes:
        steps: denoising steps of a section.
        volume: latent values per channel of a section: latent frames * height/8 * width/8.
        teacache_threshold: None where no step is skipped.
        passes: model runs in a step: 2 with a negative prompt, else 1.
    """

    sections: int
    steps: int
    volume: int
    teacache_threshold: float | None
    passes: int

    @property
    def windows(self) -> int:
        """Windows to decode: each section but the first is decoded with the one behind it."""
        return 2 * self.sections - 1


@dataclass(frozen=True)
class Pace:
    """How fast a machine is, in seconds; all but `overhead` and the share are for one latent value.

    Attributes:
        overhead: from the plan to the first section: reading models, prompt and pictures.
        computed_step, skipped_step: one pass of a step; None where TeaCache never skipped one.
        computed_share: of all steps, those that were computed.
        decoding: one window.
        saving: the video's file, for each section.
    """

    overhead: float
    computed_step: float
    skipped_step: float | None
    computed_share: float
    decoding: float
    saving: float

    def seconds(self, work: Work) -> float:
        """How long a whole job takes."""
        return self.overhead + (
            work.sections * work.steps * self.step(work)
            + work.windows * self.decoding * work.volume
            + work.sections * self.saving * work.volume
        )

    def step(self, work: Work) -> float:
        """Seconds of a step on the average."""
        share = max(self.computed_share, min(2 / work.steps, 1))  # the first and the last are always computed
        skipped = self.computed_step if self.skipped_step is None else self.skipped_step
        return (share * self.computed_step + (1 - share) * skipped) * work.volume * work.passes


class TimeLeft:
    """One running job's clock. Times are seconds of one monotonic clock.

    Args:
        known: the pace of earlier jobs on this machine, if there were any.
        learn: told this job's pace when it has finished.
    """

    def __init__(
        self, work: Work, known: Pace | None = None, learn: Callable[[Pace], None] | None = None
    ) -> None:
        self._work = work
        self._known = known
        self._learn = learn
        self._begun: float | None = None
        self._mark = 0.0
        """When what is being done now was begun."""
        self._stage = "before"
        self._overhead = self._saving = 0.0
        self._section = self._step = self._computed_here = 0
        self._computed: deque[float] = deque(maxlen=RECENT)
        self._skipped: deque[float] = deque(maxlen=RECENT)
        self._computed_counts: deque[int] = deque(maxlen=RECENT)
        """How many steps were computed in each finished section."""
        self._first_decoding: float | None = None
        self._decodings: deque[float] = deque(maxlen=RECENT)
        """Of the sections after the first: two windows each."""

    def event(self, now: float, event: Event) -> None:
        """Take note of an event at `now`; the first one starts the clock."""
        if self._begun is None:
            self._begun = self._mark = now
        match event:
            case Resumed(sections_done=done):
                self._section = done
            case StageStarted(stage="sampling", section=section):
                self._begin_section(now, section or 0)
            case StepDone():
                self._take_step(now, event)
            case StageStarted(stage="decoding" | "saving" as stage):
                self._stage, self._mark = stage, now
            case SectionDone(section=section):
                self._take_section(now, section)
            case Finished():
                self._saving = now - self._mark
                self._stage = "done"
                if self._learn is not None and self._computed:
                    self._learn(self.pace())

    def seconds_left(self, now: float) -> float | None:
        """Seconds from `now` to the end; None where nobody can say yet."""
        if self._stage == "done":
            return 0.0
        step = self._computed_step()
        if step is None or self._begun is None:
            return None
        waited = max(now - self._mark, 0.0)
        if self._stage == "saving" or self._section >= self._work.sections:
            return max(self._expected_saving() - waited, 0.0)
        if self._stage == "decoding":
            here = max(self._decoding(self._section) - waited, 0.0)
            return here + self._after(self._section + 1, step)
        if self._stage == "before":
            here = max(self._expected_overhead() - (now - self._begun), 0.0)
            return here + self._after(self._section, step)
        here = self._sampling_left(step, waited) + self._decoding(self._section)
        return here + self._after(self._section + 1, step)

    def pace(self) -> Pace:
        """This job's own pace; to be asked for when it has finished."""
        work = self._work
        pass_volume = work.volume * work.passes
        window = median_low(self._decodings) / 2 if self._decodings else self._first_decoding or 0.0
        return Pace(
            overhead=self._overhead,
            computed_step=median_low(self._computed) / pass_volume,
            skipped_step=median_low(self._skipped) / pass_volume if self._skipped else None,
            computed_share=fmean(self._computed_counts) / work.steps,
            decoding=window / work.volume,
            saving=self._saving / (work.volume * work.sections),
        )

    # -- what happened -----------------------------------------------------------------------------------

    def _begin_section(self, now: float, section: int) -> None:
        if self._stage == "before" and self._begun is not None:
            self._overhead = now - self._begun
        self._stage, self._mark = "sampling", now
        self._section, self._step, self._computed_here = section, 0, 0

    def _take_step(self, now: float, event: StepDone) -> None:
        (self._computed if event.computed else self._skipped).append(now - self._mark)
        self._computed_here += event.computed
        self._step, self._mark = event.step, now

    def _take_section(self, now: float, section: int) -> None:
        if section == 0:
            self._first_decoding = now - self._mark
        else:
            self._decodings.append(now - self._mark)
        if self._step:  # else it was sampled by an earlier run
            self._computed_counts.append(self._computed_here)
        self._begin_section(now, section + 1)

    # -- what is to be expected --------------------------------------------------------------------------

    def _after(self, section: int, step: float) -> float:
        """Seconds for `section` and all behind it, and for the file."""
        sections = max(self._work.sections - section, 0)
        if sections == 0:
            return self._expected_saving()
        computed = self._computed_in_section()
        sampling = computed * step + (self._work.steps - computed) * self._skipped_step(step)
        decoding = self._decoding(section) + (sections - 1) * self._decoding(section + 1)
        return sections * sampling + decoding + self._expected_saving()

    def _sampling_left(self, step: float, waited: float) -> float:
        """Seconds for the rest of this section's steps, of which the present one has `waited` already."""
        left = self._work.steps - self._step
        if left <= 0:
            return 0.0
        computed = min(max(self._computed_in_section() - self._computed_here, 1), left)  # the last one is
        total = computed * step + (left - computed) * self._skipped_step(step)
        return total - min(waited, total / left)

    def _computed_in_section(self) -> float:
        """How many steps of a section are computed: as in those before, as in earlier jobs, as so far."""
        steps = self._work.steps
        if self._work.teacache_threshold is None:
            return steps
        if self._computed_counts:
            return fmean(self._computed_counts)
        if self._known is not None:
            return min(max(self._known.computed_share * steps, 2), steps)
        return steps * self._computed_here / self._step if self._step else steps

    def _computed_step(self) -> float | None:
        """Seconds of a computed step; None where nothing is known."""
        known = self._known
        if len(self._computed) >= (FIRST_OWN_STEPS if known is None else OWN_STEPS):
            return median_low(self._computed)
        return None if known is None else known.computed_step * self._work.volume * self._work.passes

    def _skipped_step(self, computed: float) -> float:
        if self._skipped:
            return median_low(self._skipped)
        known = self._known
        if known is None or known.skipped_step is None:
            return computed
        return known.skipped_step * self._work.volume * self._work.passes

    def _decoding(self, section: int) -> float:
        """Seconds for decoding a section: two windows, the first section one."""
        if len(self._decodings) > 1:
            return median_low(self._decodings)
        return self._window() * (1 if section == 0 else 2)

    def _window(self) -> float:
        """Seconds for decoding a window, from the one or two decoded so far that can be believed."""
        step = self._computed_step() or 0.0
        first = [] if self._first_decoding is None else [self._first_decoding]
        for window in [seconds / 2 for seconds in self._decodings] + first:
            if window <= max(MAX_DECODING_STEPS * step, LONG_DECODING):
                return window
        return DECODING_STEPS * step if self._known is None else self._known.decoding * self._work.volume

    def _expected_overhead(self) -> float:
        return 0.0 if self._known is None else self._known.overhead

    def _expected_saving(self) -> float:
        return 0.0 if self._known is None else self._known.saving * self._work.volume * self._work.sections

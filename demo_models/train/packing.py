"""A section of a clip as the transformer's input in training, laid out as by the engine.

Plans, positions and history sizes are the engine's own (`diffusers_helper.sections`). In training, what the
engine has made already is there: the clip's own latents. Latents are `(batch, 16, frames, h, w)`.
"""

from dataclasses import dataclass

import torch

from diffusers_helper.plan import Plan, Section, make_plan
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import (
    FPS,
    FRAMES_PER_LATENT,
    HISTORY_1X,
    HISTORY_2X,
    HISTORY_4X,
    HISTORY_FRAMES,
    SectionSize,
)

from .seeds import Dice

COUNTS = (0.0, 4.0, 5.0, 2.5, 2.0, 0.5, 0.5, 0.5, 0.5)
"""The weights of numbers of sections in a video (0 to 8)."""
HALF_SECOND_PART = 0.25
OWN_END_PART, OTHER_END_PART = 0.35, 0.15
"""The parts of clips with an end image: their own last frame, or another picture, into which they
dissolve."""
WEAK_END_PART = 0.3
WEAKEST_END = 0.3
DISSOLVE_LATENTS = 8
HISTORY_NOISE = 0.2
"""The engine's own sections are never perfect: up to so much noise lies on them in half of the samples."""


@dataclass(frozen=True)
class SectionTask:
    """One section of a video to be learned."""

    plan: Plan
    section: Section

    @property
    def begin(self) -> int:
        """The index of the section's first latent frame in the video (the start image has 0)."""
        return 1 + (len(self.plan.sections) - 1 - self.section.index) * self.plan.size.latent_frames

    @property
    def end(self) -> int:
        """The number of the video's last latent frame."""
        return self.plan.latent_frames - 1


@dataclass(frozen=True)
class Ending:
    """The end image of each sample: its latent (one frame), how strongly it counts (0: there is none), and
    whether the clip dissolves into `still` (one frame, as it is inside of a video) because the image is
    another one."""

    image: torch.Tensor
    strength: torch.Tensor
    dissolves: torch.Tensor
    still: torch.Tensor


def plan_of(count: int, size: SectionSize) -> Plan:
    """The engine's plan of a video of `count` sections."""
    seconds = count * size.window * FRAMES_PER_LATENT / FPS
    return make_plan(GenerationRequest("a clip", seconds=seconds, section_seconds=size.value))


def draw_task(dice: Dice) -> SectionTask:
    """Any section of a video of any length."""
    size = SectionSize.HALF_SECOND if bool(dice.chance(HALF_SECOND_PART, 1)) else SectionSize.ONE_SECOND
    plan = plan_of(dice.pick(COUNTS), size)
    return SectionTask(plan, plan.sections[int(dice.integers(len(plan.sections), 1))])


def draw_ending(dice: Dice, task: SectionTask, clip: torch.Tensor, stills: torch.Tensor) -> Ending:
    """Draw an end image or none; other pictures are those of the clip's neighbours in the batch.

    Args:
        stills: every fourth frame, encoded as a picture.
    """
    batch = len(clip)
    kind = dice.uniform(batch)
    other = (kind < OTHER_END_PART).float()
    given = (kind < OTHER_END_PART + OWN_END_PART).float()
    weak = dice.chance(WEAK_END_PART, batch) & (other == 0)
    strength = torch.where(weak, dice.uniform(batch, low=WEAKEST_END), 1.0) * given
    last = min(task.end, stills.shape[2] - 1)
    own_image, other_image = stills[:, :, last : last + 1], stills.roll(1, 0)[:, :, -1:]
    image = torch.where(_per_sample(other) > 0, other_image, own_image)
    return Ending(image, strength, other, clip.roll(1, 0)[:, :, -1:])


def pack(
    task: SectionTask, clip: torch.Tensor, start: torch.Tensor, ending: Ending, dice: Dice | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The latents to be learned, and the transformer's arguments about where and beside what they stand.

    Args:
        clip: all latent frames; what lies beyond its end is like its last one.
        start: the start image's latent.
        dice: for noise on the history; None for none.
    """
    section, frames = task.section, task.plan.size.latent_frames
    video = _dissolve(clip[:, :, _places(0, task.end + 1, clip)], ending)
    target = video[:, :, task.begin : task.begin + frames]
    after = video[:, :, task.begin + frames :][:, :, :HISTORY_FRAMES]
    if dice is not None:
        after = _roughen(dice, after)
    history = torch.cat([after, ending.image * _per_sample(ending.strength)], dim=2)
    room = start.new_zeros(len(clip), clip.shape[1], HISTORY_FRAMES, *clip.shape[-2:])
    history = torch.cat([history, room], dim=2)[:, :, :HISTORY_FRAMES]
    history_1x, history_2x, history_4x = history.split([HISTORY_1X, HISTORY_2X, HISTORY_4X], dim=2)
    positions = section.positions
    return target, {
        "indices_latents": torch.tensor(positions.latents),
        "latents_clean": torch.cat([start, history_1x], dim=2),
        "indices_latents_clean": torch.tensor(positions.clean),
        "latents_history_2x": history_2x,
        "indices_latents_history_2x": torch.tensor(positions.history_2x),
        "latents_history_4x": history_4x,
        "indices_latents_history_4x": torch.tensor(positions.history_4x),
    }


def _dissolve(video: torch.Tensor, ending: Ending) -> torch.Tensor:
    """Let the video's end pass over into another picture, where there is one."""
    frames = video.shape[2]
    length = min(DISSOLVE_LATENTS, frames - 1)
    place = (torch.arange(frames, device=video.device) - (frames - 1 - length)) / length
    ramp = place.clamp(0, 1)
    ramp = (ramp * ramp * (3 - 2 * ramp))[:, None, None] * _per_sample(ending.dissolves)
    return video + ramp * (ending.still - video)


def _roughen(dice: Dice, history: torch.Tensor) -> torch.Tensor:
    batch = len(history)
    strength = dice.uniform(batch, high=HISTORY_NOISE) * dice.chance(0.5, batch)
    return history + _per_sample(strength) * dice.normal(*history.shape)


def _places(begin: int, end: int, clip: torch.Tensor) -> torch.Tensor:
    """Numbers of latent frames, those beyond the clip's end being the last one's."""
    return torch.arange(begin, end, device=clip.device).clamp(max=clip.shape[2] - 1)


def _per_sample(values: torch.Tensor) -> torch.Tensor:
    return values.float()[:, None, None, None, None]

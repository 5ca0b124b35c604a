"""Training the demo's transformer: flow matching on the sections of clips that were drawn and encoded.

The path from data to noise, the noise levels' shift, the timestep and the sign of the prediction are the
engine's: `x = (1 - sigma) x0 + sigma noise`, `timestep = 1000 sigma`, `prediction = noise - x0` (so
`x0 = x - sigma prediction`).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from diffusers_helper.request import GenerationRequest
from diffusers_helper.sampling.denoiser import TIMESTEPS
from diffusers_helper.sampling.schedule import flow_shift_mu
from diffusers_helper.sections import SectionSize

from .clips import Motions, draw_scene, render
from .export import load_vae
from .packing import SectionTask, draw_ending, draw_task, pack, plan_of
from .seeds import Dice
from .sizes import Size, transformer_config
from .text import label_of, load_siglip, pick_prompts, read_bank, see
from .vae import HELD_OUT, fold_single_frames

if TYPE_CHECKING:
    from diffusers import HunyuanVideoFramepackTransformer3DModel

GUIDANCE = GenerationRequest.distilled_guidance_scale * TIMESTEPS
ENCODED_AT_ONCE = 64
HELD_OUT_PLANS = ((2, SectionSize.ONE_SECOND), (1, SectionSize.ONE_SECOND), (3, SectionSize.HALF_SECOND))


@dataclass(frozen=True)
class Clips:
    """Clips of one size of picture, encoded, in half precision.

    `latents` `(n, 16, frames, h, w)` of the clips, `stills` every fourth frame encoded as a picture, `seen`
    `(n, tokens, dim)` what SigLIP sees in the first frame, `labels` what happens (see `text.label_of`).
    """

    latents: torch.Tensor
    stills: torch.Tensor
    seen: torch.Tensor
    labels: list[int]


class TransformerTask:
    """See `trainer.Task`."""

    def __init__(
        self, size: Size, seed: int, device: torch.device, models: Path, *, compiled: bool = False
    ) -> None:
        """
        Args:
            models: the folder with the finished encoders and VAE.
        """
        self.size, self.seed, self.device = size.transformer, seed, device
        self._transformer = make_transformer(size, seed).to(device)
        self._vae = load_vae(models, device)
        fold_single_frames(self._vae)
        self._siglip = load_siglip(models, device)
        self._bank = {name: tensor.to(device) for name, tensor in read_bank(models).items()}
        self._labels = {"labels": self._bank["labels"].cpu()}
        self._chunk: tuple[int, list[Clips]] | None = None
        if compiled:
            for block in (
                *self._transformer.transformer_blocks,
                *self._transformer.single_transformer_blocks,
            ):
                block.compile(dynamic=True)

    @property
    def model(self) -> "HunyuanVideoFramepackTransformer3DModel":
        return self._transformer

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        dice = Dice(self.device, self.seed, "transformer", step)
        groups = self._groups(step)
        clips = groups[step % len(groups)]
        rows = dice.integers(len(clips.labels), self.size.batch)
        loss = self._section_loss(dice, draw_task(dice), clips, rows, ("transformer", step))
        return loss, {}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The loss on held-out clips, section by section of some videos."""
        dice = Dice(self.device, self.seed, HELD_OUT)
        clips = self._draw_group(dice, self.size.views[0], 2 * self.size.draw_at_once)
        rows = torch.arange(len(clips.labels), device=self.device)
        losses = [
            self._section_loss(
                dice, SectionTask(plan, section), clips, rows, (HELD_OUT, number, section.index)
            )
            for number, plan in enumerate(plan_of(*known) for known in HELD_OUT_PLANS)
            for section in plan.sections
        ]
        return {"held_out_loss": torch.stack(losses).mean().item()}

    def _section_loss(
        self, dice: Dice, task: SectionTask, clips: Clips, rows: torch.Tensor, name: tuple[object, ...]
    ) -> torch.Tensor:
        clip, stills = clips.latents[rows].float(), clips.stills[rows].float()
        ending = draw_ending(dice, task, clip, stills)
        target, arguments = pack(task, clip, stills[:, :, :1], ending, dice)
        noise = dice.normal(*target.shape)
        sigmas = draw_sigmas(dice, target.shape)
        x = torch.lerp(target, noise, sigmas.view(-1, 1, 1, 1, 1))
        labels = [clips.labels[row] for row in rows.tolist()]
        prompts = self._prompts(pick_prompts(self._labels, labels, (self.seed, *name)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prediction = self._transformer(
                hidden_states=x,
                timestep=sigmas * TIMESTEPS,
                guidance=torch.full_like(sigmas, GUIDANCE),
                image_embeds=clips.seen[rows].float(),
                **prompts,
                **arguments,
                return_dict=False,
            )[0]
        return functional.mse_loss(prediction.float(), noise - target)

    def _prompts(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The transformer's arguments about some prompts of the bank, no longer than the longest of them."""
        rows = rows.to(self.device)
        lengths = self._bank["lengths"][rows]
        longest = int(lengths.max())
        return {
            "encoder_hidden_states": self._bank["embeds"][rows, :longest].float(),
            "encoder_attention_mask": torch.arange(longest, device=self.device) < lengths[:, None],
            "pooled_projections": self._bank["pooled"][rows].float(),
        }

    def _groups(self, step: int) -> list[Clips]:
        """The clips of a step; they change every `chunk_steps`."""
        chunk = step // self.size.chunk_steps
        if self._chunk is None or self._chunk[0] != chunk:
            self._chunk = None  # frees the memory
            groups = []
            for group in range(self.size.groups):
                dice = Dice(self.device, self.seed, "clips", chunk, group)
                view = self.size.views[int(dice.integers(len(self.size.views), 1))]
                groups.append(self._draw_group(dice, view, self.size.clips))
            self._chunk = chunk, groups
        return self._chunk[1]

    @torch.no_grad()
    def _draw_group(self, dice: Dice, view: tuple[int, int], count: int) -> Clips:
        parts = []
        for _ in range(0, count, self.size.draw_at_once):
            size = self.size.clip_size(view)
            scene = draw_scene(dice, self.size.draw_at_once, size)
            parts.append(self._encode(render(scene, size), scene.motions))
        return Clips(
            torch.cat([part.latents for part in parts]),
            torch.cat([part.stills for part in parts]),
            torch.cat([part.seen for part in parts]),
            [label for part in parts for label in part.labels],
        )

    def _encode(self, pixels: torch.Tensor, motions: Motions) -> Clips:
        every_fourth = pixels[:, :, ::4]
        batch, _, count, height, width = every_fourth.shape
        pictures = every_fourth.transpose(1, 2).reshape(batch * count, 3, 1, height, width)
        stills = torch.cat([self._latents(part) for part in pictures.split(ENCODED_AT_ONCE)])
        stills = stills.view(batch, count, *stills.shape[1:]).squeeze(3).transpose(1, 2)
        seen = see(self._siglip, pixels[:, :, 0], self.size.image_side)
        labels = [
            label_of(int(kind), motions.is_slow(number)) for number, kind in enumerate(motions.kinds.tolist())
        ]
        return Clips(self._latents(pixels).half(), stills.half(), seen.half(), labels)

    def _latents(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self._vae.encode(pixels).latent_dist.mode() * self._vae.config.scaling_factor


def draw_sigmas(dice: Dice, shape: torch.Size) -> torch.Tensor:
    """A noise level for each sample of latents of `shape`: evenly spread times, shifted as the engine
    does."""
    batch = shape[0]
    times = (torch.arange(batch, device=dice.device) + dice.uniform(batch)) / batch
    shift = math.exp(flow_shift_mu((1, *shape[1:])))
    return shift / (shift + 1 / times.clamp(1e-4, 1) - 1)


def make_transformer(size: Size, seed: int) -> "HunyuanVideoFramepackTransformer3DModel":
    """A new transformer with weights that depend on the seed alone.

    Its blocks do nothing at first and it predicts nothing (as DiT's, arXiv 2212.09748), so that it learns
    sooner.
    """
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformer_config(size.transformer, size.text)
        model = HunyuanVideoFramepackTransformer3DModel(**config)
    blocks: list[Any] = [*model.transformer_blocks, *model.single_transformer_blocks]
    norms = [
        getattr(block, name)
        for block in blocks
        for name in ("norm1", "norm1_context", "norm")
        if hasattr(block, name)
    ]
    for norm in (*norms, model.norm_out):
        nn.init.zeros_(norm.linear.weight)
        nn.init.zeros_(norm.linear.bias)
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    return model

"""Asking the FramePack transformer for clean latents: its inputs for a section, guidance, TeaCache.

diffusers' model stays as it is; only its blocks are gathered into one `BlockStack`, which is where steps
are left out and where blocks may come from anywhere.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .device import Compute
from .sections import Positions
from .teacache import TeaCache

if TYPE_CHECKING:
    from diffusers import HunyuanVideoFramepackTransformer3DModel

TIMESTEPS = 1000.0


@dataclass(frozen=True)
class PromptEmbeds:
    """An encoded prompt: `embeds` `(1, 512, dim)` zero-padded with `mask` `(1, 512)`, `pooled` `(1, dim)`."""

    embeds: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class SectionInputs:
    """What one section is made from. Latents are `(1, 16, frames, h, w)`: `clean` 2 frames (start picture
    and newest history), `history_2x` 2, `history_4x` 16; `image_embeds` `(1, tokens, dim)`."""

    positive: PromptEmbeds
    negative: PromptEmbeds | None
    image_embeds: torch.Tensor
    clean: torch.Tensor
    history_2x: torch.Tensor
    history_4x: torch.Tensor
    positions: Positions


@dataclass(frozen=True)
class Guidance:
    """`distilled` is told to the model; `scale` other than 1 asks it twice, `rescale` tames the result."""

    distilled: float
    scale: float = 1.0
    rescale: float = 0.0


class BlockStack(nn.Module):
    """All transformer blocks as one. With a TeaCache in `cache`, it may leave them all out."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.cache: TeaCache | None = None
        self.computed = True
        """Whether the last call ran the blocks."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_mask: torch.Tensor | None,
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.computed = True
        if self.cache is not None:
            modulated_input = self.blocks[0].get_submodule("norm1")(hidden_states, emb=temb)[0]
            self.computed = self.cache.should_compute(modulated_input)
            if not self.computed:
                return self.cache.apply(hidden_states), encoder_hidden_states
        before = hidden_states
        for block in self.blocks:
            hidden_states, encoder_hidden_states = block(
                hidden_states, encoder_hidden_states, temb, attention_mask, rotary
            )
        if self.cache is not None:
            self.cache.remember(before, hidden_states)
        return hidden_states, encoder_hidden_states


def gather_blocks(model: "HunyuanVideoFramepackTransformer3DModel") -> BlockStack:
    """Put all of a model's blocks into one BlockStack in their place, once; returns it."""
    first = model.transformer_blocks[0]
    if isinstance(first, BlockStack):
        return first
    stack = BlockStack([*model.transformer_blocks, *model.single_transformer_blocks])
    model.transformer_blocks = nn.ModuleList([stack])
    model.single_transformer_blocks = nn.ModuleList()
    return stack


class SectionDenoiser:
    """Predicts the clean latents of one section; `predict(x, sigma)` is called once a step."""

    def __init__(
        self,
        model: "HunyuanVideoFramepackTransformer3DModel",
        inputs: SectionInputs,
        guidance: Guidance,
        compute: Compute,
        caches: tuple[TeaCache, TeaCache] | None,
    ) -> None:
        self._model = model
        self._stack = gather_blocks(model)
        self._guidance = guidance
        self._compute = compute
        self._caches = caches or (None, None)
        self._positive, self._negative = inputs.positive, inputs.negative
        self._shared = self._shared_arguments(inputs)
        self.computed = True
        """Whether the last step ran the blocks."""

    @torch.inference_mode()
    def predict(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Clean latents seen from `x` `(1, 16, frames, h, w)` float32 at noise level `sigma`; float32."""
        velocity = self._ask(x, sigma, self._positive, self._caches[0])
        self.computed = self._stack.computed
        if self._guidance.scale != 1 and self._negative is not None:
            negative = self._ask(x, sigma, self._negative, self._caches[1])
            velocity = guide(velocity, negative, self._guidance.scale, self._guidance.rescale)
        return x - float(sigma) * velocity

    def _ask(
        self, x: torch.Tensor, sigma: torch.Tensor, prompt: PromptEmbeds, cache: TeaCache | None
    ) -> torch.Tensor:
        self._stack.cache = cache
        (velocity,) = self._model(
            hidden_states=x.to(self._compute.transformer),
            timestep=self._on_device((sigma * TIMESTEPS)[None]),
            encoder_hidden_states=self._on_device(prompt.embeds),
            encoder_attention_mask=prompt.mask.to(self._compute.device),
            pooled_projections=self._on_device(prompt.pooled),
            **self._shared,
            return_dict=False,
        )
        return velocity.float()

    def _shared_arguments(self, inputs: SectionInputs) -> dict[str, torch.Tensor]:
        positions = inputs.positions
        return {
            "image_embeds": self._on_device(inputs.image_embeds),
            "guidance": self._on_device(torch.tensor([self._guidance.distilled * TIMESTEPS])),
            "indices_latents": torch.tensor(positions.latents),
            "latents_clean": self._on_device(inputs.clean),
            "indices_latents_clean": torch.tensor(positions.clean),
            "latents_history_2x": self._on_device(inputs.history_2x),
            "indices_latents_history_2x": torch.tensor(positions.history_2x),
            "latents_history_4x": self._on_device(inputs.history_4x),
            "indices_latents_history_4x": torch.tensor(positions.history_4x),
        }

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._compute.device, self._compute.transformer)


def guide(positive: torch.Tensor, negative: torch.Tensor, scale: float, rescale: float) -> torch.Tensor:
    """Classifier-free guidance, rescaled towards the positive's spread (arXiv 2305.08891, section 3.4)."""
    guided = negative + scale * (positive - negative)
    dims = tuple(range(1, positive.ndim))
    spread = positive.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return rescale * (guided * spread) + (1 - rescale) * guided

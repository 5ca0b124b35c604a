"""The prediction of clean latents by the FramePack transformer: its inputs for a section, and guidance."""

import copy
import itertools
from collections.abc import Hashable
from dataclasses import dataclass

import torch

from ..device import Compute
from ..encoding.prompts import PromptEmbeds
from ..models.streamed_transformer import StreamedTransformer
from ..sections import Positions
from ..transformer.teacache import TeaCache

TIMESTEPS = 1000.0
"""The timestep at noise level 1; distilled guidance has the same factor."""


@dataclass(frozen=True)
class SectionInputs:
    """The transformer's inputs for one section (FramePack, arXiv 2504.12626).

    Attributes:
        negative: the negative prompt; None without classifier-free guidance.
        image_embeds: `(1, tokens, dim)` of the start picture.
        clean: latents `(1, 16, 2, h, w)` of the section's picture and of the newest history.
        history_2x: latents `(1, 16, 2, h, w)`, which the transformer compresses 2 times.
        history_4x: latents `(1, 16, 16, h, w)`, which it compresses 4 times.
    """

    positive: PromptEmbeds
    negative: PromptEmbeds | None
    image_embeds: torch.Tensor
    clean: torch.Tensor
    history_2x: torch.Tensor
    history_4x: torch.Tensor
    positions: Positions


@dataclass(frozen=True)
class Guidance:
    """The guidance scales: `distilled` is an input of the model, `scale` other than 1 runs it twice a step.

    `rescale` in 0..1 is the weight of the rescaled guidance (see `guide`).
    """

    distilled: float
    scale: float = 1.0
    rescale: float = 0.0


class SectionDenoiser:
    """Predicts the clean latents of one section; call `predict` once a step."""

    def __init__(
        self,
        transformer: StreamedTransformer,
        inputs: SectionInputs,
        guidance: Guidance,
        compute: Compute,
        sigmas: torch.Tensor,
        caches: tuple[TeaCache, TeaCache] | None = None,
    ) -> None:
        """
        Args:
            sigmas: all noise levels to come `(steps,)`, because modulation is computed now for all of them.
            caches: TeaCache states for the positive and the negative prompt.
        """
        self._transformer = transformer
        self._model, self._stack = transformer.model, transformer.stack
        self._guidance = guidance
        self._compute = compute
        prompts = inputs.positive, inputs.negative
        self._prompts = [self._prompt_on_device(prompt) for prompt in prompts if prompt is not None]
        self._timesteps: dict[float, torch.Tensor] = {}
        self._caches: list[TeaCache | None] = list(caches or (None, None))
        self._shared = self._shared_arguments(inputs)
        self.computed = True
        """True if the last step ran the blocks, False if TeaCache skipped them."""
        transformer.budget.retry_on_oom(lambda: self._compute_modulation(sigmas))

    @torch.inference_mode()
    def predict(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Predict clean latents from `x` `(1, 16, frames, h, w)` float32 at noise level `sigma`, in float32.

        The model predicts the velocity v of flow matching: x0 = x - sigma * v. Where VRAM runs out, the
        streamed layers release theirs and the step is repeated.

        Raises:
            torch.OutOfMemoryError: there is nothing left to release.
        """
        before = self._caches
        return self._transformer.budget.retry_on_oom(lambda: self._predict(x, sigma, before))

    def _predict(self, x: torch.Tensor, sigma: torch.Tensor, caches: list[TeaCache | None]) -> torch.Tensor:
        self._caches = [copy.copy(cache) for cache in caches]  # a repeated step starts from the same ones
        velocity = self._velocity(x, sigma, 0)
        self.computed = self._stack.computed
        if self._guidance.scale != 1 and len(self._prompts) > 1:
            negative = self._velocity(x, sigma, 1)
            velocity = guide(velocity, negative, self._guidance.scale, self._guidance.rescale)
        return x - float(sigma) * velocity

    def _velocity(self, x: torch.Tensor, sigma: torch.Tensor, index: int) -> torch.Tensor:
        prompt = self._prompts[index]
        self._stack.cache = self._caches[index]
        self._stack.key = prompt.key(sigma)
        (velocity,) = self._model(
            hidden_states=x.to(self._compute.transformer),
            timestep=self._timesteps[float(sigma)],
            encoder_hidden_states=prompt.embeds,
            encoder_attention_mask=prompt.mask,
            pooled_projections=prompt.pooled,
            **self._shared,
            return_dict=False,
        )
        return velocity.float()

    @torch.inference_mode()
    def _compute_modulation(self, sigmas: torch.Tensor) -> None:
        """Compute the blocks' modulation for all steps, unless an equal section before has done so."""
        self._timesteps = {float(sigma): self._on_device((sigma * TIMESTEPS)[None]) for sigma in sigmas}
        embeddings = {}
        for prompt, sigma in itertools.product(self._prompts, sigmas):
            embeddings[prompt.key(sigma)], _ = self._model.time_text_embed(
                self._timesteps[float(sigma)], prompt.pooled, self._shared["guidance"]
            )
        self._stack.table.add(embeddings)

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

    def _prompt_on_device(self, prompt: PromptEmbeds) -> "_DevicePrompt":
        identity = prompt.pooled.cpu().float().numpy().tobytes()
        embeds, pooled = self._on_device(prompt.embeds), self._on_device(prompt.pooled)
        return _DevicePrompt(embeds, prompt.mask.cpu(), pooled, identity)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._compute.device, self._compute.transformer)


@dataclass(frozen=True)
class _DevicePrompt:
    """A prompt on the device, its mask on the CPU, where it is read."""

    embeds: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor
    identity: bytes

    def key(self, sigma: torch.Tensor) -> Hashable:
        """The key of a step's modulation (guidance is constant within a job)."""
        return self.identity, float(sigma)


def guide(positive: torch.Tensor, negative: torch.Tensor, scale: float, rescale: float) -> torch.Tensor:
    """Apply classifier-free guidance, rescaled to the positive's deviation (arXiv 2305.08891, section 3.4).

    Args:
        positive: prediction for the prompt, `(1, ...)`; `negative` for the negative prompt alike.
        scale: 1 for no guidance.
        rescale: weight of the rescaled result, 0..1.
    """
    guided = negative + scale * (positive - negative)
    dims = tuple(range(1, positive.ndim))
    ratio = positive.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return rescale * (guided * ratio) + (1 - rescale) * guided

"""The prediction of clean latents by the FramePack transformer: its inputs for a section, and guidance."""

import copy
from dataclasses import dataclass

import torch

from ..device import Compute
from ..encoding.prompts import PromptEmbeds
from ..models.streamed import StreamedTransformer
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
        distilled_guidance: the guidance scale that is an input of the model.
        guidance: the scale of classifier-free guidance, which other than 1 runs the model twice a step.
        rescale: the weight of the rescaled guidance, 0..1 (see `guide`).
    """

    positive: PromptEmbeds
    negative: PromptEmbeds | None
    image_embeds: torch.Tensor
    clean: torch.Tensor
    history_2x: torch.Tensor
    history_4x: torch.Tensor
    positions: Positions
    distilled_guidance: float = 10.0
    guidance: float = 1.0
    rescale: float = 0.0


class SectionDenoiser:
    """Predicts the clean latents of one section; call `predict` once a step."""

    def __init__(
        self,
        transformer: StreamedTransformer,
        inputs: SectionInputs,
        compute: Compute,
        sigmas: torch.Tensor,
        cache: TeaCache | None = None,
    ) -> None:
        """
        Args:
            sigmas: all noise levels to come `(steps,)`, because modulation is computed now for all of them.
            cache: a new TeaCache, of which each prompt gets its own; None to compute every step.
        """
        self._model, self._stack, self._budget = transformer.model, transformer.stack, transformer.budget
        self._inputs = inputs
        self._compute = compute
        self._prompts = [prompt for prompt in (inputs.positive, inputs.negative) if prompt is not None]
        self._embeds = [self._on_device(prompt.embeds) for prompt in self._prompts]
        self._pooled = [self._on_device(prompt.pooled) for prompt in self._prompts]
        self._timesteps = {float(sigma): self._scalar(sigma * TIMESTEPS) for sigma in sigmas}
        self._caches = [copy.copy(cache) for _ in self._prompts]
        self._shared = self._shared_arguments()
        self.computed = True
        """True if the last step ran the blocks, False if TeaCache skipped them."""
        self._budget.retry_on_oom(self._compute_modulation)

    @torch.inference_mode()
    def predict(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Predict clean latents from `x` `(1, 16, frames, h, w)` float32 at noise level `sigma`, in float32.

        The model predicts the velocity v of flow matching: x0 = x - sigma * v. Where VRAM runs out, the
        streamed layers release theirs and the step is repeated.

        Raises:
            torch.OutOfMemoryError: there is nothing left to release.
        """
        before = self._caches
        return self._budget.retry_on_oom(lambda: self._predict(x, sigma, before))

    def _predict(self, x: torch.Tensor, sigma: torch.Tensor, caches: list[TeaCache | None]) -> torch.Tensor:
        self._caches = [copy.copy(cache) for cache in caches]  # a repeated step starts from the same ones
        velocity = self._velocity(x, sigma, 0)
        self.computed = self._stack.computed
        if len(self._prompts) > 1:
            negative = self._velocity(x, sigma, 1)
            velocity = guide(velocity, negative, self._inputs.guidance, self._inputs.rescale)
        return self._on_device(x).float() - float(sigma) * velocity  # of the x that it has seen

    def _velocity(self, x: torch.Tensor, sigma: torch.Tensor, index: int) -> torch.Tensor:
        self._stack.cache = self._caches[index]
        self._stack.key = self._prompts[index], float(sigma)
        (velocity,) = self._model(
            hidden_states=self._on_device(x),
            timestep=self._timesteps[float(sigma)],
            encoder_hidden_states=self._embeds[index],
            encoder_attention_mask=self._prompts[index].mask,
            pooled_projections=self._pooled[index],
            **self._shared,
            return_dict=False,
        )
        return velocity.float()

    @torch.inference_mode()
    def _compute_modulation(self) -> None:
        """Compute the blocks' modulation for all steps, unless an equal section before has done so.

        Its key is a step's prompt and noise level: guidance is constant within a job.
        """
        embed, guidance = self._model.time_text_embed, self._shared["guidance"]
        self._stack.table.add(
            {
                (prompt, sigma): embed(timestep, pooled, guidance)[0]
                for prompt, pooled in zip(self._prompts, self._pooled, strict=True)
                for sigma, timestep in self._timesteps.items()
            }
        )

    def _shared_arguments(self) -> dict[str, torch.Tensor]:
        inputs, positions = self._inputs, self._inputs.positions
        return {
            "image_embeds": self._on_device(inputs.image_embeds),
            "guidance": self._scalar(torch.tensor(inputs.distilled_guidance * TIMESTEPS)),
            "indices_latents": torch.tensor(positions.latents),
            "latents_clean": self._on_device(inputs.clean),
            "indices_latents_clean": torch.tensor(positions.clean),
            "latents_history_2x": self._on_device(inputs.history_2x),
            "indices_latents_history_2x": torch.tensor(positions.history_2x),
            "latents_history_4x": self._on_device(inputs.history_4x),
            "indices_latents_history_4x": torch.tensor(positions.history_4x),
        }

    def _scalar(self, value: torch.Tensor) -> torch.Tensor:
        """Return a timestep or guidance scale `(1,)`, in 16 bits rounded to bfloat16 as FramePack does."""
        is_float32 = self._compute.transformer == torch.float32
        return self._on_device(value[None] if is_float32 else value[None].bfloat16())

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Round a tensor to the transformer's dtype, and give it the dtype between its layers."""
        return tensor.to(self._compute.device, self._compute.transformer).to(self._compute.activations)


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

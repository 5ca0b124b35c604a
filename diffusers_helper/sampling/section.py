"""The sampling of one section, from noise to clean latents."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch

from ..device import Compute
from ..encoding.conditioning import Conditioning
from ..errors import MachineError
from ..events import Event, Notice, StageStarted, StepDone
from ..models.streamed import StreamedTransformer
from ..plan import Section
from ..request import GenerationRequest
from ..sections import HISTORY_1X, HISTORY_2X, HISTORY_4X
from ..transformer.teacache import TeaCache
from ..vae.preview import preview_latents
from .denoiser import SectionDenoiser, SectionInputs
from .schedule import flow_shift_mu, flow_sigmas, sample_unipc

logger = logging.getLogger(__name__)

Sampled = Generator[Event, None, tuple[torch.Tensor, list[int]]]
"""Events, and in the end the section's latents `(1, channels, t, h, w)` on the CPU, and for each step 1 where
the blocks ran, or 0."""


@dataclass(frozen=True)
class SectionSampler:
    """Samples the `sections` sections of one job. `check_stop` raises StopRequested to end it; `preview_fit`
    is the VAE's own one, if it has any (see `preview_latents`)."""

    request: GenerationRequest
    sections: int
    conditioning: Conditioning
    transformer: StreamedTransformer
    compute: Compute
    check_stop: Callable[[], None]
    preview_fit: list[list[float]] | None = None

    def sample(self, section: Section, history: torch.Tensor, noise: torch.Tensor) -> Sampled:
        """Sample a section from noise `(1, channels, t, h, w)` float32, yielding each step.

        `history` are latents `(1, 16, HISTORY_FRAMES, h, w)` of the frames that follow it in the video.

        Where latents are not finite and blocks are compiled, or their attention is not PyTorch's native one,
        the section is sampled again without; if that helps, later jobs do without, too.

        Raises:
            MachineError: latents are not finite (`not_a_number_in_latents`).
        """
        stack = self.transformer.stack
        runner, attention = stack.runner, stack.attention
        inputs = section_inputs(self.request, self.conditioning, section, history)
        try:
            return (yield from self._sample(section, inputs, noise))
        except MachineError as error:
            if error.code != "not_a_number_in_latents" or not stack.fall_back_to_eager(error.code):
                raise
        logger.warning("section %d went wrong, and is sampled again with eager blocks", section.index)
        sampled = yield from self._sample(section, inputs, noise)
        runner.disable("numbers went wrong")
        attention.failed = attention.is_replaced
        return sampled

    def _sample(self, section: Section, inputs: SectionInputs, noise: torch.Tensor) -> Sampled:
        request, transformer = self.request, self.transformer
        sigmas = flow_sigmas(request.steps, flow_shift_mu(tuple(noise.shape)))
        evaluations: list[int] = []
        self.check_stop()
        yield StageStarted("sampling", section.index)
        cache = TeaCache(request.teacache_threshold, request.steps) if request.teacache else None
        denoiser = SectionDenoiser(transformer, inputs, self.compute, sigmas[:-1], cache)
        latents = noise = noise.to(self.compute.device)
        begin = time.perf_counter()
        with transformer.streaming():
            for step, latents in enumerate(sample_unipc(denoiser.predict, noise, sigmas), 1):
                if not torch.isfinite(latents).all():
                    raise MachineError("not_a_number_in_latents", step=step, section=section.index + 1)
                evaluations.append(int(denoiser.computed))
                yield from self._report_waits(denoiser.computed, time.perf_counter() - begin)
                preview = preview_latents(latents, self.preview_fit)
                yield StepDone(section.index, self.sections, step, request.steps, denoiser.computed, preview)
                if step < request.steps:
                    self.check_stop()
                begin = time.perf_counter()
        logger.info(
            "section %d: blocks computed in %d of %d steps", section.index, sum(evaluations), request.steps
        )
        return latents.cpu(), evaluations

    def _report_waits(self, computed: bool, seconds: float) -> Iterator[Notice]:
        """Report, once in a job, that its steps wait for the disk."""
        if computed:
            self.transformer.waits.add(seconds)
            if (fraction := self.transformer.waits.take_news()) is not None:
                yield Notice("waits_for_disk", {"percent": round(100 * fraction)})


def section_inputs(
    request: GenerationRequest, conditioning: Conditioning, section: Section, history: torch.Tensor
) -> SectionInputs:
    """Select the inputs for a section from the latents `(1, 16, HISTORY_FRAMES, h, w)` behind it."""
    prompts = conditioning.prompts
    history_1x, history_2x, history_4x = history.split([HISTORY_1X, HISTORY_2X, HISTORY_4X], dim=2)
    return SectionInputs(
        positive=prompts[section.prompt],
        negative=prompts[request.negative_prompt] if request.guidance_scale != 1 else None,
        image_embeds=conditioning.image_embeds,
        clean=torch.cat([conditioning.latents[section.picture], history_1x], dim=2),
        history_2x=history_2x,
        history_4x=history_4x,
        positions=section.positions,
        distilled_guidance=request.distilled_guidance_scale,
        guidance=request.guidance_scale,
        rescale=request.guidance_rescale,
    )

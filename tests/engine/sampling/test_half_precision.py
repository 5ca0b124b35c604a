"""One step in 16 bits, as FramePack's own modules compute it: see `tests/golden/half_precision`."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.prompts import PromptEmbeds
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.sampling.denoiser import SectionDenoiser, SectionInputs
from diffusers_helper.sections import section_positions
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS

STEP = load_file(MODELS.with_name("half_precision") / "one_step.safetensors")


def denoised(dtype):
    """The clean latents that our step predicts."""
    prompt, history = STEP["prompt_embeds"], STEP["history"]
    count = prompt.shape[1]
    embeds = PromptEmbeds(
        functional.pad(prompt, (0, 0, 0, 512 - count)), torch.arange(512)[None] < count, STEP["pooled"]
    )
    inputs = SectionInputs(
        embeds,
        None,
        STEP["image_embeds"],
        torch.cat([STEP["start"], history[:, :, :1]], 2),
        *history[:, :, 1:].split((2, 16), 2),
        section_positions(18, 9),
    )
    compute = dataclasses.replace(choose_compute("cpu"), transformer=dtype)
    loader = ModelLoader(find_models(MODELS), compute)
    with loader.transformer(2000) as transformer:
        denoiser = SectionDenoiser(transformer, inputs, compute, STEP["sigma"])
        return denoiser.predict(STEP["x"], STEP["sigma"][0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_velocity_is_upstreams(dtype):
    """Measured: equal to the bit on the processor of the file in bfloat16, 0.0022 and 0.0032 on another."""
    velocity = (STEP["x"].to(dtype).float() - denoised(dtype)) / float(STEP["sigma"])
    wanted = STEP[f"velocity.{str(dtype).removeprefix('torch.')}"]
    assert float((velocity - wanted).norm() / wanted.norm()) < 0.005


def test_the_clean_latents_are_those_of_the_rounded_noise(monkeypatch):
    """From upstream's velocity exactly; of the x in float32 they would differ by 0.0017."""
    monkeypatch.setattr(SectionDenoiser, "_velocity", lambda *_: STEP["velocity.bfloat16"])
    assert torch.equal(denoised(torch.bfloat16), STEP["denoised.bfloat16"])

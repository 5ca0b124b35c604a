"""Guidance, the stack of blocks, and a step in 16 bits (see `tests/golden/half_precision`)."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from diffusers_helper.device import choose_compute
from diffusers_helper.encoding.prompts import PromptEmbeds
from diffusers_helper.kernels import relative_error
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.sampling.denoiser import SectionDenoiser, SectionInputs, guide
from diffusers_helper.sections import section_positions
from diffusers_helper.transformer.block_stack import BlockStack
from diffusers_helper.transformer.compiling import EagerBlocks
from diffusers_helper.transformer.modulation import MODULATED_NORMS, PrecomputedModulation
from diffusers_helper.transformer.teacache import TeaCache
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS, make_loader

STEP = load_file(MODELS.with_name("half_precision") / "one_step.safetensors")


def test_guidance_of_one_is_the_positive():
    positive, negative = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    assert torch.allclose(guide(positive, negative, 1, 0.7), positive, atol=1e-6)


def test_full_rescale_gives_the_positives_spread():
    positive, negative = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    guided = guide(positive, negative, 5, 1)
    assert torch.allclose(guided.std(), positive.std(), rtol=1e-5)
    assert guide(positive, negative, 5, 0).std() > 2 * positive.std()


class Norm(nn.Module):
    """A modulated norm with the interface that the stack and TeaCache use."""

    def __init__(self):
        super().__init__()
        self.linear = PrecomputedModulation()

    def forward(self, hidden, emb):
        return (hidden * self.linear(emb),)


class AddOne(nn.Module):
    """A block that counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.norm1, self.norm1_context = Norm(), Norm()

    def forward(self, hidden, text, _temb, _mask, _rotary):
        self.calls += 1
        return hidden + self.norm1.linear(None), text


class Layers(list):
    """Blocks without streaming."""

    class _Layer:
        kind = "double"

    ring = None

    @property
    def layers(self):
        return [self._Layer()] * len(self)

    def __iter__(self):
        return iter(enumerate(super().__iter__()))


def make_stack(blocks):
    products = [(torch.tensor(1.0), torch.tensor(1.0)) for _ in blocks]
    stack = BlockStack(Layers(blocks), {"step": products}, Norm(), EagerBlocks())
    stack.key = "step"
    return stack


@pytest.mark.parametrize(
    ("cache", "computed"),
    [(TeaCache(threshold=0.4, steps=4), [True, False, False, True]), (None, [True] * 4)],
)
def test_skipped_steps_run_no_block_and_add_the_last_residual(cache, computed):
    blocks = [AddOne(), AddOne()]
    stack = make_stack(blocks)
    stack.cache = cache
    hidden, text, temb = torch.full((1, 3, 2), 5.0), torch.zeros(1, 1, 2), torch.ones(1)
    for is_computed in computed:
        out, _ = stack(hidden, text, temb, None, None)
        assert stack.computed is is_computed
        assert torch.equal(out, hidden + 2)
    assert [block.calls for block in blocks] == [sum(computed)] * 2


def test_the_stack_holds_all_blocks_of_both_kinds_in_order():
    with make_loader().transformer(tokens=500) as transformer:
        kinds = [layer.kind for layer in transformer.stack.layers.layers]
        assert kinds == ["double"] * 2 + ["single"] * 3
        assert [index for index, _ in transformer.stack.layers] == [0, 1, 2, 3, 4]
        assert not any("transformer_blocks" in name for name, _ in transformer.model.named_parameters())


def denoised(dtype, models=MODELS, **values):
    """The clean latents that our step predicts."""
    prompt, history = STEP["prompt_embeds"], STEP["history"]
    padded = functional.pad(prompt, (0, 0, 0, 512 - prompt.shape[1]))
    embeds = PromptEmbeds(padded, torch.arange(512)[None] < prompt.shape[1], STEP["pooled"])
    clean = torch.cat([STEP["start"], history[:, :, :1]], 2), *history[:, :, 1:].split((2, 16), 2)
    inputs = SectionInputs(embeds, None, STEP["image_embeds"], *clean, section_positions(18, 9), **values)
    compute = dataclasses.replace(choose_compute("cpu"), transformer=dtype)
    with ModelLoader(find_models(models), compute).transformer(2000) as transformer:
        denoiser = SectionDenoiser(transformer, inputs, compute, STEP["sigma"])
        return denoiser.predict(STEP["x"], STEP["sigma"][0])


def velocity(dtype, *given, **values):
    return (STEP["x"].to(dtype).float() - denoised(dtype, *given, **values)) / float(STEP["sigma"])


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_the_velocity_in_bfloat16_is_upstreams():
    """Measured: equal to the bit on the processor of the file, 0.0022 on another.

    oneDNN's products on AMX round so that it becomes 0.0094, where bfloat16 itself is 0.23 from float32.
    """
    with torch.backends.mkldnn.flags(enabled=False):
        assert relative_error(velocity(torch.bfloat16), STEP["velocity.bfloat16"]) < 0.005


OVERFLOWS = {
    "the prompt's MLP": {"transformer_blocks.0.ff_context.net.2.bias": 5e4},
    "the picture's MLP": {"transformer_blocks.1.ff.net.2.bias": -6e4},
    "within an MLP": {"transformer_blocks.0.ff.net.0.proj.bias": 6e4},
    "after the attention": {"transformer_blocks.0.attn.to_out.0.bias": 6e4},
    "a single block": {"single_transformer_blocks.0.proj_out.bias": 6e4},
    "the prompt's refiner": {"context_embedder.token_refiner.refiner_blocks.0.ff.net.2.bias": 6e4},
    "nothing": {},
}


@pytest.mark.parametrize("place", OVERFLOWS)
def test_float16_is_near_float32_where_numbers_exceed_it(place, tmp_path):
    """Gates of 3 make 1.8e5 of 6e4. The guidance is 9984 for both, bfloat16's 10000 (FramePack's call)."""
    gates = {
        f"transformer_blocks.{i}.{norm}.linear.bias": 3.0
        for i in (0, 1)
        for norm in MODULATED_NORMS["double"]
    }
    gates |= {"single_transformer_blocks.0.norm.linear.bias": 3.0}
    changes = OVERFLOWS[place] and gates | OVERFLOWS[place]
    models = shutil.copytree(MODELS, tmp_path / "models")
    for path in (models / "lllyasviel" / "FramePackI2V_HY").glob("*.safetensors"):
        weights = load_file(path)
        for name in changes.keys() & weights.keys():
            weights[name].fill_(changes[name])
        save_file(weights, path)
    exact = velocity(torch.float32, models, distilled_guidance=9.984)
    assert relative_error(velocity(torch.float16, models), exact) < 0.004


def test_the_clean_latents_are_those_of_the_rounded_noise(monkeypatch):
    """From upstream's velocity exactly; of the x in float32 they would differ by 0.0017."""
    monkeypatch.setattr(SectionDenoiser, "_velocity", lambda *_: STEP["velocity.bfloat16"])
    assert torch.equal(denoised(torch.bfloat16), STEP["denoised.bfloat16"])

"""The kernels of 8-bit tokens and products: their numbers, and what they need of each kind of GPU."""

import inspect
import json
import subprocess
import sys

import pytest

from diffusers_helper.eight_bit.linear import int8_product
from diffusers_helper.vae.windows import unfold_frames
from tests.support import token_ops
from tests.support.triton_interpreter import NEEDS_TRITON, ROOT, assert_equal

KERNEL = """
import torch
from diffusers_helper.eight_bit import token_kernels
from diffusers_helper.eight_bit import product_kernel
from diffusers_helper.eight_bit.linear import int8_product, quantize
from diffusers_helper.eight_bit.tokens import Tokens
from tests.support import token_ops

def check(name, *given):
    found, wanted = getattr(token_kernels, name)(*given), getattr(token_ops, name)(*given)
    if isinstance(found, Tokens):
        found, wanted = found.dequantize(), wanted.dequantize()
    assert found.shape == wanted.shape, name
    off = float((found - wanted).norm() / wanted.norm())
    assert off < 0.003, (name, off)  # a number at a border may become either

torch.manual_seed(0)
for first, second in ((5, 3), (5, 0), (0, 4)):
    for width in (256, 768):
        states = torch.randn(first, width) * 3 + 1, torch.randn(second, width)
        check("quantize_tokens", torch.cat(states))
        check("quantize_normed", *states, torch.randn(width), torch.randn(width))
        angles = torch.randn(first, 16).repeat_interleave(2, dim=1)
        weights = torch.rand(32) + 0.5, torch.rand(32) + 0.5
        check("norm_and_rotate", *states, *weights, angles.cos(), angles.sin())
for before in (0, 256, 768):
    hidden = torch.randn(7, 1280) * 4
    hidden[2] = 0
    check("quantize_activated", torch.randn(7, before), hidden)
odd = torch.randn(5, 512)
odd[1] *= 1e20
odd[2] = 0
odd[3] *= 1e-20
for found in (token_kernels.quantize_activated(odd[:, :0], odd.abs()), token_kernels.quantize_tokens(odd)):
    assert torch.isfinite(found.scale).all()
    assert (found.numbers.abs().amax(1)[[0, 1, 4]] == 127).all()
    assert (found.numbers[2] == 0).all()
for column in (7, 300):
    odd[0, column] = torch.nan
    ones = torch.ones(512)
    assert token_kernels.quantize_tokens(odd).scale.isnan().flatten().tolist() == [True] + 4 * [False]
    assert token_kernels.quantize_normed(odd, odd[:0], ones, ones).scale[0].isnan()
    assert token_kernels.quantize_activated(odd[:, :256], odd[:, 256:]).scale[0].isnan()
    odd[0] = 1
for tokens, outputs, bias in ((5, 64, True), (130, 192, False)):
    x, (weight, scale) = torch.randn(tokens, 128), quantize(torch.randn(outputs, 128))
    given = token_ops.quantize_tokens(x), weight, scale, torch.randn(outputs) if bias else None
    found, wanted = product_kernel.int8_product_with_scales(*given), int8_product(*given)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)
print("equal")
"""


@NEEDS_TRITON
def test_the_kernels_agree_with_pytorchs_operations():
    assert_equal(KERNEL)


@NEEDS_TRITON
def test_kernels_take_what_pytorchs_operations_take():
    from diffusers_helper.eight_bit import product_kernel, token_kernels
    from diffusers_helper.vae import window_kernel

    pairs = [*zip(token_kernels.KERNELS, token_ops.TORCH_OPS, strict=True)]
    pairs += [(product_kernel.int8_product_with_scales, int8_product)]
    pairs += [(window_kernel.unfold_frames_at_once, unfold_frames)]
    for kernel, native in pairs:
        assert [*inspect.signature(kernel).parameters] == [*inspect.signature(native).parameters]


@NEEDS_TRITON
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 89, 90, 120])
def test_kernels_compile_for_each_gpu_without_spilling(capability):
    """Real widths; a GeForce has 99 KiB of shared memory and a thread 255 registers."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.compiled_kernels", str(capability)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    needs = json.loads(done.stdout)
    assert {(spilled, 0 < used <= 255, shared <= 99 * 1024) for used, spilled, shared in needs} == {(0, 1, 1)}

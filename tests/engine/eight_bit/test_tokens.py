"""8-bit tokens: the self-test shows each operation's errors, and the kernels agree with PyTorch's."""

import sys
import types

import pytest
import torch

from diffusers_helper.eight_bit import block
from diffusers_helper.eight_bit.block import choose_token_ops
from diffusers_helper.eight_bit.tokens import TORCH_OPS, TokenOps, Tokens
from tests.support.triton_interpreter import NEEDS_TRITON, assert_equal


@pytest.mark.parametrize("name", TORCH_OPS._fields)
@pytest.mark.parametrize(("factor", "is_used"), [(1, True), (1.05, False)])
def test_token_kernels_are_used_only_if_every_operation_is_right(monkeypatch, name, factor, is_used):
    def operation(*arguments):
        right = getattr(TORCH_OPS, name)(*arguments)
        return right._replace(scale=right.scale * factor) if isinstance(right, Tokens) else right * factor

    module = types.ModuleType("token_kernels")
    module.KERNELS = TokenOps(**(TORCH_OPS._asdict() | {name: operation}))
    monkeypatch.setitem(sys.modules, "diffusers_helper.eight_bit.token_kernels", module)
    sample = block._sample
    monkeypatch.setattr(block, "_sample", lambda ops, _device: sample(ops, torch.device("cpu")))
    chosen = choose_token_ops.__wrapped__(torch.device("cuda"))
    assert chosen is (module.KERNELS if is_used else TORCH_OPS)


KERNEL = """
import torch
from diffusers_helper.eight_bit import token_kernels
from diffusers_helper.eight_bit import product_kernel
from diffusers_helper.eight_bit.linear import int8_product, quantize
from diffusers_helper.eight_bit.tokens import TORCH_OPS, Tokens

KERNELS = token_kernels.KERNELS

def check(name, *given):
    found, wanted = getattr(KERNELS, name)(*given), getattr(TORCH_OPS, name)(*given)
    if isinstance(found, Tokens):
        found, wanted = found.dequantize(), wanted.dequantize()
    assert found.shape == wanted.shape, name
    off = float((found - wanted).norm() / wanted.norm())
    assert off < 0.003, (name, off)  # a number at a border may become either

torch.manual_seed(0)
for first, second in ((5, 3), (5, 0), (0, 4)):
    for width in (256, 768, 96):  # a row of 96 is left to PyTorch
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
for found in (KERNELS.quantize_activated(odd[:, :0], odd.abs()), KERNELS.quantize_tokens(odd)):
    assert torch.isfinite(found.scale).all()
    assert (found.numbers.abs().amax(1)[[0, 1, 4]] == 127).all()
    assert (found.numbers[2] == 0).all()
for column in (7, 300):
    odd[0, column] = torch.nan
    ones = torch.ones(512)
    assert KERNELS.quantize_tokens(odd).scale.isnan().flatten().tolist() == [True] + 4 * [False]
    assert KERNELS.quantize_normed(odd, odd[:0], ones, ones).scale[0].isnan()
    assert KERNELS.quantize_activated(odd[:, :256], odd[:, 256:]).scale[0].isnan()
    odd[0] = 1
for tokens, outputs, bias in ((5, 64, True), (130, 192, False)):
    x, (weight, scale) = torch.randn(tokens, 128), quantize(torch.randn(outputs, 128))
    given = TORCH_OPS.quantize_tokens(x), weight, scale, torch.randn(outputs) if bias else None
    found, wanted = product_kernel.int8_product_with_scales(*given), int8_product(*given)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)
print("equal")
"""


@NEEDS_TRITON
def test_the_kernels_agree_with_pytorchs_operations():
    assert_equal(KERNEL)

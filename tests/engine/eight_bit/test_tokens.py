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
from diffusers_helper.eight_bit.tokens import E4M3, TORCH_OPS, Tokens

KERNELS = token_kernels.KERNELS
token_kernels.E4M3 = torch.float32  # the interpreter cannot round to 8 bits, PyTorch can

def check(name, *given):
    found, wanted = getattr(KERNELS, name)(*given), getattr(TORCH_OPS, name)(*given)
    if isinstance(found, Tokens):
        found, wanted = found._replace(numbers=found.numbers.to(E4M3)).dequantize(), wanted.dequantize()
    assert found.shape == wanted.shape, name
    off = float((found - wanted).norm() / wanted.norm())
    assert off < 0.003, (name, off)  # a number at a border may become either

torch.manual_seed(0)
for first, second in ((5, 3), (5, 0), (0, 4)):
    for width in (96, 64):
        states = torch.randn(first, width) * 3 + 1, torch.randn(second, width)
        check("quantize_normed", *states, torch.randn(width), torch.randn(width))
        angles = torch.randn(first, 16).repeat_interleave(2, dim=1)
        weights = torch.rand(32) + 0.5, torch.rand(32) + 0.5
        check("norm_and_rotate", *states, *weights, angles.cos(), angles.sin())
for before in (0, 96, 64):
    hidden = torch.randn(7, 160) * 4
    hidden[2] = 0
    check("quantize_activated", torch.randn(7, before), hidden)
torch.manual_seed(1)
odd = torch.randn(4, 100)
odd[1] *= 1e20
odd[2] = 0
odd[3] *= 1e-20
found = KERNELS.quantize_activated(odd[:, :0], odd.abs())
assert torch.isfinite(found.scale).all()
assert torch.allclose(found.numbers.abs().amax(1)[:2], torch.tensor(448.0))
assert (found.numbers[2] == 0).all()
odd[0, 7] = torch.nan
ones = torch.ones(100)
assert KERNELS.quantize_normed(odd, odd[:0], ones, ones).numbers[0].isnan().all()
assert KERNELS.quantize_activated(odd[:, :50], odd[:, 50:]).numbers[0, 7].isnan()
print("equal")
"""


@NEEDS_TRITON
def test_the_kernels_agree_with_pytorchs_operations():
    assert_equal(KERNEL)

"""Tokens of 8 bits: which way to make them is taken, and that all ways agree."""

import sys
import types

import pytest
import torch

from diffusers_helper.eight_bit import tokens as eight_bit_tokens
from diffusers_helper.eight_bit.tokens import OPS, TokenOps, Tokens, choose_token_ops, quantise_normed
from tests.support.triton_interpreter import NEEDS_TRITON, assert_equal

CARD = torch.device("cuda")


@pytest.fixture(autouse=True)
def tried_on_a_cpu(monkeypatch):
    original = eight_bit_tokens._try_out
    monkeypatch.setattr(eight_bit_tokens, "_try_out", lambda ops, _device: original(ops, torch.device("cpu")))
    choose_token_ops.cache_clear()
    yield
    choose_token_ops.cache_clear()


def offer(monkeypatch, **ways):
    """Kernels that are torch's operations, but for `ways`."""
    module = types.ModuleType("eight_bit_token_kernel")
    module.KERNELS = TokenOps(**(OPS._asdict() | ways))
    monkeypatch.setitem(sys.modules, "diffusers_helper.eight_bit.token_kernels", module)
    return module.KERNELS


def test_a_cpu_uses_torchs_own_operations():
    assert choose_token_ops(torch.device("cpu")) is OPS


def test_without_triton_a_card_uses_torchs_own_operations(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers_helper.eight_bit.token_kernels", None)
    assert choose_token_ops(CARD) is OPS


def test_kernels_that_are_right_are_used(monkeypatch):
    kernels = offer(monkeypatch, quantise_normed=lambda *given: quantise_normed(*given))
    assert choose_token_ops(CARD) is kernels


@pytest.mark.parametrize("name", OPS._fields)
@pytest.mark.parametrize("error", [RuntimeError("cannot find a C compiler"), AssertionError()])
def test_kernels_that_do_not_compile_are_not_used(monkeypatch, name, error):
    def way(*_arguments):
        raise error

    offer(monkeypatch, **{name: way})
    assert choose_token_ops(CARD) is OPS


@pytest.mark.parametrize("name", OPS._fields)
@pytest.mark.parametrize("factor", [1.05, torch.nan])
def test_kernels_that_are_wrong_are_not_used(monkeypatch, name, factor):
    def way(*arguments):
        right = getattr(OPS, name)(*arguments)
        return Tokens(right.numbers, right.scale * factor) if isinstance(right, Tokens) else right * factor

    offer(monkeypatch, **{name: way})
    assert choose_token_ops(CARD) is OPS


def test_running_out_of_memory_is_no_reason_against_kernels(monkeypatch):
    def way(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    offer(monkeypatch, quantise_activated=way)
    with pytest.raises(torch.OutOfMemoryError):
        choose_token_ops(CARD)


KERNEL = """
import torch
from diffusers_helper import eight_bit_token_kernel
from diffusers_helper.eight_bit.tokens import E4M3, OPS, Tokens, _whole

KERNELS = eight_bit_token_kernel.KERNELS
eight_bit_token_kernel.E4M3 = torch.float32  # the interpreter cannot round to 8 bits, PyTorch can

def check(name, *given):
    found, wanted = getattr(KERNELS, name)(*given), getattr(OPS, name)(*given)
    found = Tokens(found.numbers.to(E4M3), found.scale) if isinstance(found, Tokens) else found
    found, wanted = _whole(found), _whole(wanted)
    assert found.shape == wanted.shape, name
    off = float((found - wanted).norm() / wanted.norm())
    assert off < 0.003, (name, off)  # a number at a border may become either

torch.manual_seed(0)
for first, second in ((5, 3), (5, 0), (0, 4)):
    for width in (96, 64):
        states = torch.randn(first, width) * 3 + 1, torch.randn(second, width)
        check("quantise_normed", *states, torch.randn(width), torch.randn(width))
        angles = torch.randn(first, 16).repeat_interleave(2, dim=1)
        weights = torch.rand(32) + 0.5, torch.rand(32) + 0.5
        check("norm_and_rotate", *states, *weights, angles.cos(), angles.sin())
for before in (0, 96, 64):
    hidden = torch.randn(7, 160) * 4
    hidden[2] = 0
    check("quantise_activated", torch.randn(7, before), hidden)
torch.manual_seed(1)
odd = torch.randn(4, 100)
odd[1] *= 1e20
odd[2] = 0
odd[3] *= 1e-20
found = KERNELS.quantise_activated(odd[:, :0], odd.abs())
assert torch.isfinite(found.scale).all()
assert torch.allclose(found.numbers.abs().amax(1)[:2], torch.tensor(448.0))
assert (found.numbers[2] == 0).all()
odd[0, 7] = torch.nan
ones = torch.ones(100)
assert KERNELS.quantise_normed(odd, odd[:0], ones, ones).numbers[0].isnan().all()
assert KERNELS.quantise_activated(odd[:, :50], odd[:, 50:]).numbers[0, 7].isnan()
print("equal")
"""


@NEEDS_TRITON
def test_the_kernels_agree_with_torchs_own_operations():
    assert_equal(KERNEL)

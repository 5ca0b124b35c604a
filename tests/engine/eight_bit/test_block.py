"""The fused forward of 8-bit blocks: its numbers, and when a compiler takes it."""

import copy

import pytest
import torch

from diffusers_helper.eight_bit.block import can_fuse
from diffusers_helper.eight_bit.linear import int8_product, kernel_product
from diffusers_helper.transformer.compiling import COMPILED_FORWARD, CompiledBlocks, EagerBlocks, _call
from tests.support.eight_bit_blocks import HEAD_DIM, HEADS, KINDS, make_block, states


def fused(block, arguments):
    return getattr(block, COMPILED_FORWARD)(block, *arguments)


def worst_error(found, wanted):
    return max(float((f - w).float().norm() / w.float().norm()) for f, w in zip(found, wanted, strict=True))


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_fused_forward_agrees_with_diffusers_block(kind, dtype, most):
    block, arguments = make_block(kind, dtype=dtype), states(dtype=dtype)
    found, wanted = fused(block, arguments), block(*arguments)
    assert [each.shape for each in found] == [each.shape for each in wanted]
    assert [each.dtype for each in found] == [dtype, dtype]
    assert worst_error(found, wanted) < most


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_a_block_changes_its_output(kind):
    """The test above would miss a weight that is left out, if it made no difference."""
    block, arguments = make_block(kind), states()
    wanted = block(*arguments)
    for name, _ in block.named_parameters():
        other = copy.deepcopy(block)
        parameter = other.get_parameter(name)
        parameter.data = (parameter.data.float() * 0.7 + 0.1).to(parameter.dtype)
        assert worst_error(other(*arguments), wanted) > 1e-3, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_fused", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_compiles_to_one_graph_for_any_number_of_tokens(kind, is_fused, graphs):
    runner, block = CompiledBlocks(graphs), make_block(kind)
    if not is_fused:
        delattr(block, COMPILED_FORWARD)
    with torch.inference_mode():
        for sizes in ((20, 7), (12, 9), (31, 5)):
            arguments = states(*sizes)
            other = copy.deepcopy(block)  # as each slot of the ring has its own
            assert worst_error(runner(other, *arguments), _call(block, *arguments)) < 1e-6
    assert runner.is_compiling
    assert graphs.frame_count == 1


@pytest.mark.parametrize("kind", KINDS)
def test_eager_blocks_do_not_use_it(kind, monkeypatch):
    block, called = make_block(kind), []
    monkeypatch.setattr(block, COMPILED_FORWARD, lambda *_: called.append(1))
    disabled = CompiledBlocks()
    disabled.is_compiling = False
    with torch.inference_mode():
        for runner in (EagerBlocks(), disabled):
            runner(block, *states())
    assert not called


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("product", [None, int8_product, kernel_product, "no 8-bit layer"])
def test_a_block_with_other_products_has_no_fused_forward(kind, product):
    block = KINDS[kind](HEADS, HEAD_DIM, mlp_ratio=4.0)
    if product != "no 8-bit layer":
        block = make_block(kind)  # whose other layers have another product than our kernel
        delattr(block, COMPILED_FORWARD)
        block.attn.to_v.product = product
    assert not can_fuse(block)

"""Guidance, and the blocks gathered into one."""

import torch
from torch import nn

from diffusers_helper.teacache import TeaCache
from diffusers_helper.transformer import BlockStack, gather_blocks, guide
from tests.tiny import make_loader


def test_guidance_of_one_is_the_positive():
    positive, negative = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    assert torch.allclose(guide(positive, negative, 1, 0.7), positive, atol=1e-6)


def test_full_rescale_gives_the_positives_spread():
    positive, negative = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 4, 2, 3, 3)
    guided = guide(positive, negative, 5, 1)
    assert torch.allclose(guided.std(), positive.std(), rtol=1e-5)
    assert guide(positive, negative, 5, 0).std() > 2 * positive.std()


class AddOne(nn.Module):
    """A block that counts its calls and has the norm that TeaCache looks at."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.norm1 = Modulate()

    def forward(self, hidden, text, _temb, _mask, _rotary):
        self.calls += 1
        return hidden + 1, text


class Modulate(nn.Module):
    def forward(self, hidden, emb):
        return (hidden * emb,)


def test_skipped_steps_run_no_block_and_add_the_last_residual():
    blocks = [AddOne(), AddOne()]
    stack = BlockStack(list(blocks))
    stack.cache = TeaCache(threshold=0.4, steps=4)
    hidden, text, temb = torch.full((1, 3, 2), 5.0), torch.zeros(1, 1, 2), torch.ones(1)
    ran = []
    for _ in range(4):
        out, _ = stack(hidden, text, temb, None, None)
        ran.append(stack.computed)
        assert torch.equal(out, hidden + 2)
    assert ran == [True, False, False, True]
    assert [block.calls for block in blocks] == [2, 2]


def test_without_a_cache_every_step_runs():
    block = AddOne()
    stack = BlockStack([block])
    for _ in range(3):
        stack(torch.ones(1, 3, 2), torch.zeros(1, 1, 2), torch.ones(1), None, None)
    assert block.calls == 3


def test_blocks_are_gathered_once_and_in_order():
    with make_loader().transformer() as model:
        blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
        stack = gather_blocks(model)
        assert list(stack.blocks) == blocks
        assert gather_blocks(model) is stack

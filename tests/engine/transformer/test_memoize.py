"""Parts of the transformer that are computed once a section."""

import gc
import weakref

import torch
from torch import nn

from diffusers_helper.transformer.memoize import HostMask, Memoized


class Count(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, value, scale=1):
        self.calls += 1
        return value * scale


def test_only_the_same_tensors_and_equal_arguments_are_remembered():
    count = Count()
    module, one, two = Memoized(count, size=3), torch.ones(2), torch.full((2,), 2.0)
    for _ in range(3):
        assert torch.equal(module(one), one)
        assert torch.equal(module(two, scale=3), two * 3)
    assert count.calls == 2
    module(one.clone())
    assert count.calls == 3
    assert [float(module(one, scale=s)[0]) for s in (4, 5, 4, 5)] == [4, 5, 4, 5]
    assert count.calls == 5


def test_only_the_last_results_are_kept():
    module = Memoized(Count(), size=1)
    first = torch.ones(2)
    gone = weakref.ref(first)
    module(first)
    module(torch.ones(2))
    del first
    gc.collect()
    assert gone() is None


def test_forgotten_results_are_freed():
    count = Count()
    module, value = Memoized(count, size=2), torch.ones(2)
    gone = weakref.ref(module(value))
    module.forget()
    gc.collect()
    assert gone() is None
    module(value)
    assert count.calls == 2


def test_a_mask_is_moved_once():
    class Inner(nn.Module):
        def forward(self, states, _timestep, mask):
            return states, mask

    module, mask = HostMask(Inner()), torch.ones(1, 4, dtype=torch.bool)
    states = torch.ones(1, 4, 2)
    results = [module(states, None, mask)[1] for _ in range(2)]
    assert results[0] is results[1]
    assert torch.equal(results[0], mask)

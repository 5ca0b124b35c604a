"""Attention in int8: used where it is right and faster, and one operation to a compiler."""

import sys
import types
from unittest.mock import Mock

import pytest
import torch
from torch.nn import functional

from diffusers_helper.eight_bit import int8_attention as module
from diffusers_helper.eight_bit.int8_attention import int8_attention, is_faster
from diffusers_helper.events import Notice
from diffusers_helper.transformer.compiling import CompiledBlocks
from tests.support.eight_bit_blocks import KINDS, make_block, states
from tests.support.tiny import make_loader, run, small_request

CPU = torch.device("cpu")


@pytest.fixture
def package(monkeypatch):
    """A package that computes exactly, times `factor`, and changes the keys that it gets."""
    package = types.SimpleNamespace(factor=1.0, calls=0)

    def sageattn(query, key, value, tensor_layout):
        assert tensor_layout == "NHD"
        package.calls += 1
        heads_first = (each.transpose(1, 2) for each in (query, key, value))
        result = functional.scaled_dot_product_attention(*heads_first).transpose(1, 2) * package.factor
        key -= key.mean(1, keepdim=True)
        return result

    monkeypatch.setitem(sys.modules, "sageattention", types.SimpleNamespace(sageattn=sageattn))
    return package


def random_states(count=40):
    return list(torch.randn(3, 1, count, 2, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.usefixtures("package")
def test_it_changes_none_of_what_it_is_given():
    given = random_states()
    before = [each.clone() for each in given]
    found = int8_attention(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    transposed = (each.transpose(1, 2) for each in given)
    assert torch.allclose(found, functional.scaled_dot_product_attention(*transposed).transpose(1, 2))


@pytest.mark.parametrize(
    ("factor", "seconds", "used"),
    [(1.0, (1, 2), True), (1.0, (2, 1), False), (1.02, (1, 2), True), (1.04, (1, 2), False)],
    ids=["faster", "slower", "rounded", "wrong"],
)
def test_it_is_used_where_it_is_right_and_faster(package, monkeypatch, factor, seconds, used):
    package.factor, times = factor, iter(seconds)
    monkeypatch.setattr(module, "TRIED_TOKENS", 64)
    monkeypatch.setattr(module, "_time", lambda _: next(times))
    is_faster.cache_clear()
    assert is_faster(CPU, torch.float32, 2, 16, "native") is used
    calls = package.calls
    assert is_faster(CPU, torch.float32, 2, 16, "native") is used
    assert package.calls == calls, "tried once"


def test_without_the_package_the_exact_attention_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "sageattention", None)
    monkeypatch.setattr(module, "TRIED_TOKENS", 64)
    is_faster.cache_clear()
    assert not is_faster(CPU, torch.float32, 2, 16, "native")


@pytest.mark.usefixtures("package")
def test_without_memory_to_try_the_exact_attention_is_used(monkeypatch):
    monkeypatch.setattr(module, "attend", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
    is_faster.cache_clear()
    assert not is_faster(CPU, torch.float32, 2, 16, "native")


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_with_it_is_one_graph(package, kind, graphs):
    runner, exact, block = (
        CompiledBlocks(graphs),
        make_block(kind),
        make_block(kind, attention=int8_attention),
    )
    for sizes in ((20, 7), (31, 5)):
        arguments = states(*sizes)
        for found, wanted in zip(runner(block, *arguments), exact(*arguments), strict=True):
            assert torch.allclose(found, wanted, atol=1e-4)
    assert runner.is_compiling
    assert graphs.frame_count == 1
    assert package.calls == 2


def test_the_page_is_told_once(tmp_path, monkeypatch):
    loader = make_loader()
    kind = "diffusers_helper.models.streamed.StreamedTransformer.has_int8_attention"
    monkeypatch.setattr(kind, property(lambda _: True))
    told = []
    for name in ("a", "b"):
        events = run(small_request(steps=1), tmp_path / name, loader=loader)
        told += [event for event in events if isinstance(event, Notice)]
    assert told == [Notice("int8_attention", {})]

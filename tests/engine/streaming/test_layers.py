"""Layers that stay or pass through a ring: the same weights in every pass, and nothing left behind."""

import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffusers_helper.streaming.layers import NUM_SLOTS
from diffusers_helper.streaming.ring import WeightRing
from diffusers_helper.streaming.row_lookup import RowLookup
from diffusers_helper.weights.checkpoint import Checkpoint
from tests.support.small_layers import COUNT, SmallLayers


@pytest.fixture
def small(tmp_path):
    return SmallLayers(tmp_path)


@pytest.mark.parametrize("resident", [[], [0], [2, 5], list(range(COUNT))])
@pytest.mark.parametrize("num_slots", [1, NUM_SLOTS, 10])
def test_every_layer_has_its_weights_wherever_it_is(small, resident, num_slots):
    with small.streamed() as streamed:
        streamed.load_resident(resident)
        streamed.num_slots = num_slots
        assert streamed.num_resident == len(resident)
        for _pass in range(2):
            small.check_pass(streamed)
        ring = streamed.ring
        assert (ring is None) == (len(resident) == COUNT)
        assert ring is None or len(ring.slots) == min(num_slots, COUNT - len(resident))


def test_ring_serves_all_passes_until_it_is_closed(small):
    threads = set(threading.enumerate())
    with small.streamed() as streamed:
        assert streamed.ring is None
        small.check_pass(streamed)
        ring = streamed.ring
        small.check_pass(streamed)
        assert streamed.ring is ring
        streamed.close_ring()
        assert streamed.ring is None
        assert not ring.slots
        assert set(threading.enumerate()) <= threads
        small.check_pass(streamed)
        assert streamed.ring is not ring
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("broken_off_at", [0, 4])
def test_broken_off_pass_begins_anew(small, broken_off_at):
    with small.streamed() as streamed:
        streamed.load_resident([1])
        for index, _module in streamed:
            if index == broken_off_at:
                break
        small.check_pass(streamed)


def test_layer_that_failed_to_load_is_loaded_again_in_the_next_pass(small, monkeypatch):
    original, broken = WeightRing._load_chunk, []

    def bring(ring, load, *rest):
        if load.slot in broken:
            raise RuntimeError("no memory for a buffer")
        original(ring, load, *rest)

    monkeypatch.setattr(WeightRing, "_load_chunk", bring)
    with small.streamed() as streamed:
        for broken[:] in ([0], [2]):  # the first one of a pass and a later one
            with pytest.raises(RuntimeError, match="no memory"):
                small.check_pass(streamed)
            broken.clear()
            small.check_pass(streamed)
            streamed.close_ring()
        small.check_pass(streamed)
        assert all(load.done.wait(10) for load in streamed.ring._loads)
        streamed.ring._loads[1].error = RuntimeError("failed ahead of its pass")
        small.check_pass(streamed)


def test_evicting_ends_with_no_resident_layer_and_changes_no_weight(small):
    with small.streamed() as streamed:
        streamed.load_resident(range(COUNT))
        counts = []
        while streamed.num_resident:
            streamed.evict_half()
            counts.append(streamed.num_resident)
            small.check_pass(streamed)
    assert counts == [3, 1, 0]


def test_layers_kept_in_ram_outlive_the_ring(small):
    with small.streamed() as streamed:
        streamed.load_resident([2, 5])
        small.check_pass(streamed)
        streamed.keep_in_ram([0, 6])
        for _section in range(2):
            small.check_pass(streamed)
            assert [*streamed.ring.kept] == [0, 4]  # among those that are streamed
            streamed.close_ring()
        streamed.evict_half()
        small.check_pass(streamed)
        assert [*streamed.ring.kept] == [0, 5]


def test_weights_are_plain_tensors_in_inference_mode_too(small):
    with torch.inference_mode(), small.streamed() as streamed:
        streamed.load_resident([2])
        assert not any(module.weight.is_inference() for _index, module in streamed)


def test_looked_up_rows_are_those_of_an_embedding(tmp_path):
    table = torch.randn(50, 8, dtype=torch.float16)
    save_file({"embed.weight": table}, tmp_path / "model.safetensors")
    ids = torch.tensor([[3, 3, 49, 0, 17]])
    lookup = RowLookup(Checkpoint.open(tmp_path), "embed.weight", torch.float32)
    assert torch.equal(lookup(ids), nn.functional.embedding(ids, table.float()))
    with pytest.raises(IndexError, match="row 50 of 50"):
        lookup(torch.tensor([50]))

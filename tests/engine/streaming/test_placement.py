"""The placement of layers, for the machines people have."""

import itertools

import pytest

from diffusers_helper.limits import GIB, HIDDEN_READ_FRACTION, ram_reserve
from diffusers_helper.streaming.placement import plan_ram, plan_vram, spread_evenly

MIB = 2**20
BLOCKS = [433 * MIB] * 20 + [216 * MIB] * 40
"""The transformer's blocks in bfloat16 without their modulation."""
SATA, NVME = 0.5e9, 3.5e9
SLOW_GPU, FAST_GPU = 30.0, 1.1


@pytest.mark.parametrize(("vram", "count"), [(8, 0), (12, 12), (24, 54), (80, 60)])
@pytest.mark.parametrize("ram", [8, 16, 32, 64])
@pytest.mark.parametrize("disk", [SATA, NVME])
@pytest.mark.parametrize("step", [SLOW_GPU, FAST_GPU])
def test_every_machine_has_a_plan_that_fits(vram, count, ram, disk, step):
    free_vram, reserved = int((vram - 1.3) * GIB), int(6.2 * GIB)
    resident = plan_vram(BLOCKS, free_vram, reserved, num_slots=3)
    assert len(resident) == count
    ring = 3 * max(BLOCKS) if 0 < count < 60 else 0
    assert not resident or sum(BLOCKS[index] for index in resident) + ring + reserved <= free_vram
    streamed = [size for index, size in enumerate(BLOCKS) if index not in resident]
    room = (ram - 4) * GIB - ram_reserve(ram * GIB)
    kept, reason = plan_ram(streamed, (ram - 4) * GIB, ram * GIB, disk, step)
    is_hidden = sum(streamed) / disk <= HIDDEN_READ_FRACTION * step
    assert bool(kept) == (not is_hidden and room < sum(streamed))
    assert sum(streamed[index] for index in kept) <= room
    assert reason


def test_machine_without_room_keeps_nothing():
    kept, reason = plan_ram(BLOCKS, 1 * GIB, 8 * GIB, SATA, SLOW_GPU)
    assert kept == []
    assert "nothing is kept" in reason


@pytest.mark.parametrize("budget", [0, 1, 5, 10, 29, 30, 31])
def test_chosen_layers_are_spread_evenly_within_the_budget(budget):
    chosen = spread_evenly([1] * 30, budget)
    assert len(chosen) == min(budget, 30)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1

"""The layers that stay on the device, for the machines that people have."""

import itertools

import pytest

from diffusers_helper.limits import GIB
from diffusers_helper.streaming.placement import plan_ram, plan_vram, spread_evenly

MIB = 2**20
BLOCKS = [433 * MIB] * 20 + [216 * MIB] * 40
"""The transformer's blocks in bfloat16 without their modulation."""
STREAMED = sum(BLOCKS)
SATA, NVME = 0.5e9, 3.5e9
SLOW_CARD, FAST_CARD = 30.0, 1.1


@pytest.mark.parametrize(
    ("vram", "least", "most"), [(3, 0, 0), (5, 1, 8), (7, 5, 15), (11, 15, 40), (23, 60, 60), (79, 60, 60)]
)
def test_as_many_layers_stay_in_vram_as_fit(vram, least, most):
    reserved = int(2.6 * GIB)
    chosen = plan_vram(BLOCKS, int(vram * GIB), reserved, num_slots=3)
    assert least <= len(chosen) <= most
    used = sum(BLOCKS[place] for place in chosen)
    ring = 0 if len(chosen) == 60 else 3 * max(BLOCKS)
    assert not chosen or used + ring + reserved <= vram * GIB


@pytest.mark.parametrize("ram", [8, 16, 32, 64])
@pytest.mark.parametrize("disk", [SATA, NVME])
@pytest.mark.parametrize("step", [SLOW_CARD, FAST_CARD])
def test_ram_is_only_taken_where_reading_is_what_takes_the_time(ram, disk, step):
    free = int((ram - 4) * GIB)
    plan = plan_ram(BLOCKS, free, ram * GIB, disk, step)
    hidden = STREAMED / disk <= 0.9 * step
    cached = free - max(2 * GIB, 0.15 * ram * GIB) >= STREAMED
    assert bool(plan.kept) == (not hidden and not cached)
    left = free - sum(BLOCKS[place] for place in plan.kept)
    assert not plan.kept or left >= max(2 * GIB, 0.15 * ram * GIB)
    assert plan.reason


@pytest.mark.parametrize("vram", [8, 12, 24, 80])
@pytest.mark.parametrize("ram", [8, 16, 32, 64])
@pytest.mark.parametrize("disk", [SATA, NVME])
@pytest.mark.parametrize("step", [SLOW_CARD, FAST_CARD])
def test_every_machine_has_a_plan_that_fits_it(vram, ram, disk, step):
    free_vram, reserved = int((vram - 1.3) * GIB), int(6.2 * GIB)
    resident = plan_vram(BLOCKS, free_vram, reserved, num_slots=3)
    assert len(resident) == {8: 0, 12: 12, 24: 54, 80: 60}[vram]
    streamed = [size for place, size in enumerate(BLOCKS) if place not in resident]
    plan = plan_ram(streamed, int((ram - 4) * GIB), ram * GIB, disk, step)
    assert not plan.kept or sum(streamed) / disk > 0.9 * step
    assert sum(streamed[place] for place in plan.kept) <= (ram - 6) * GIB


@pytest.mark.parametrize(
    ("ram", "disk", "step", "kept"),
    [
        (8, NVME, SLOW_CARD, "none"),
        (8, SATA, SLOW_CARD, "some"),
        (8, NVME, FAST_CARD, "some"),
        (16, NVME, SLOW_CARD, "none"),
        (16, SATA, SLOW_CARD, "some"),
        (16, NVME, FAST_CARD, "some"),
        (32, SATA, FAST_CARD, "none"),
        (64, SATA, FAST_CARD, "none"),
    ],
)
def test_decisions_for_the_machines_people_have(ram, disk, step, kept):
    plan = plan_ram(BLOCKS, int((ram - 4) * GIB), ram * GIB, disk, step)
    assert bool(plan.kept) == (kept == "some"), plan.reason


def test_a_machine_without_room_keeps_nothing():
    plan = plan_ram(BLOCKS, 1 * GIB, 8 * GIB, SATA, SLOW_CARD)
    assert plan.kept == ()
    assert "nothing is kept" in plan.reason


def test_nothing_streamed_is_nothing_to_decide():
    assert plan_ram([], 0, 8 * GIB, SATA, SLOW_CARD).kept == ()


@pytest.mark.parametrize("budget", [0, 1, 5, 10, 29, 30, 31])
def test_what_stays_is_spread_evenly_and_within_the_budget(budget):
    sizes = [1] * 30
    chosen = spread_evenly(sizes, budget)
    assert len(chosen) == min(budget, 30)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1

"""The placement of layers: in VRAM, in RAM, or in their files. Pure functions of numbers.

The operating system's file cache is the RAM tier by itself, as long as all of it fits: a cycle that is
larger than the cache finds nothing in it. Only then, and only where reading is what takes the time, is a
fixed part of the layers kept in RAM.
"""

from collections.abc import Sequence

from ..limits import GIB, HIDDEN_READ_FRACTION, ram_reserve


def spread_evenly(sizes: Sequence[int], budget: int) -> list[int]:
    """Choose items, spread evenly over all, with sizes of at most `budget` in all; return their indices."""
    total = sum(sizes)
    if total <= budget:
        return list(range(len(sizes)))
    share, passed, chosen, used = budget / total, 0, [], 0
    for index, size in enumerate(sizes):
        passed += size
        if used + size <= passed * share:  # never ahead of an even share
            chosen.append(index)
            used += size
    return chosen


def plan_vram(sizes: Sequence[int], free: int, reserved: int, num_slots: int) -> list[int]:
    """Choose the layers that stay in VRAM; returns their indices.

    Args:
        sizes: bytes of each layer.
        free: VRAM that may be used now.
        reserved: bytes that the job needs beside the layers, for activations above all.
        num_slots: buffers of the ring, each as large as the largest layer, needed unless all layers stay.
    """
    budget = free - reserved
    if sum(sizes) <= budget:
        return list(range(len(sizes)))
    return spread_evenly(sizes, budget - num_slots * max(sizes))


def plan_ram(
    sizes: Sequence[int], free: int, total: int, disk_bytes_per_second: float, step_seconds: float
) -> tuple[list[int], str]:
    """Decide which of the streamed layers, of these `sizes` in bytes, to keep in RAM.

    Returns their indices, and the reason for the log.

    `free` of `total` RAM is available, the file cache's included. The speed and the step's time are measured.
    """
    streamed = sum(sizes)
    reading = streamed / disk_bytes_per_second
    facts = f"reading {streamed / GIB:.1f} GiB takes {reading:.1f} s, a step {step_seconds:.1f} s"
    if reading <= HIDDEN_READ_FRACTION * step_seconds:
        return [], f"{facts}: reading is hidden"
    room = free - ram_reserve(total)
    if room >= streamed:
        return [], f"{facts}, and the file cache has room for all of it"
    kept = spread_evenly(sizes, room)
    if not kept:
        return [], f"{facts}, but only {free / GIB:.1f} GiB of RAM are free: nothing is kept"
    saved = sum(sizes[index] for index in kept)
    return kept, f"{facts}: {len(kept)} layers, {saved / GIB:.1f} GiB, are kept in RAM"

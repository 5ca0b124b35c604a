"""The numbers that the engine goes by and its callers may need beforehand. Imports nothing."""

GIB = 2**30
"""Bytes in a gibibyte."""
OLDEST_CAPABILITY = (7, 0)
"""The oldest compute capability that is supported: before Volta there are no matrix units, and a video would
take days. Triton's kernels need it, too."""
BFLOAT16_CAPABILITY = (8, 0)
"""The oldest compute capability that computes in bfloat16."""
VAE_BYTES = 5 * GIB
"""Bytes left for decoding whole frames of 640x608 before layers may stay; its weights are there by then."""
SPARE_BYTES = 5 * GIB // 4
"""Bytes left free on a GPU: what its driver, the screen and the gaps in the allocator's blocks take."""
RAM_RESERVE_BYTES = 2 * GIB
"""Bytes of RAM left to the system and to other programs, or `RAM_RESERVE_FRACTION` of all if that is more."""
RAM_RESERVE_FRACTION = 0.15
"""The fraction of all RAM that is left to the system and to other programs."""
HIDDEN_READ_FRACTION = 0.9
"""The most that reading may take of a step's time to be hidden behind it."""


def ram_reserve(total: int) -> int:
    """Return the bytes of `total` RAM that are left to the system and to other programs."""
    return max(RAM_RESERVE_BYTES, int(RAM_RESERVE_FRACTION * total))

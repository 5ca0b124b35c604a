"""The memory policy: how much is reserved for computing, which of the transformer's layers stay
on the device, how many pass through it at once, and what goes first when memory runs out.

On a GPU its memory is shared out, on a CPU the RAM.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from ..device import Compute
from ..limits import GIB, SPARE_BYTES, VAE_BYTES, ram_reserve
from ..memory import empty_cache, free_vram, is_out_of_memory
from ..ram import read_ram
from ..streaming.layers import NUM_SLOTS, StreamedLayers
from ..streaming.placement import plan_vram

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

ACTIVATION_WIDTHS = 24
"""The memory of a pass: this many tensors of tokens x hidden size (measured 18 at most, and some air)."""
TEXT_TOKENS = 1300
"""The most tokens of a section that are the prompt's and the picture's."""
CPU_VAE_BYTES = 2**31
"""Bytes after which more do not make decoding on a CPU faster."""
VAE_SPARE_BYTES = 2**28
"""Bytes left free on a GPU while decoding."""
VAE_GAPS = 1.1
"""The factor by which the allocator takes more than decoding uses."""


class VramBudget:
    """Shares out the device's memory among the layers of one job's transformer.

    Decoding and sampling take turns. Layers that stay do so through both; the ring that the others pass
    through is there while a section is sampled, with the memory that decoding needs.
    """

    def __init__(self, layers: StreamedLayers, compute: Compute, tokens: int, hidden_size: int) -> None:
        """Reserve memory for steps of `tokens` tokens."""
        self._layers = layers
        self._compute = compute
        self._activation_bytes = tokens * hidden_size * compute.activations.itemsize * ACTIVATION_WIDTHS
        self._was_short = False

    def load_resident(self) -> None:
        """Load as many layers to stay as leave room for computing; fewer where memory runs out before."""
        compute, reserved = self._compute, self._activation_bytes
        free = free_vram(compute.device, compute.memory_limit)
        if compute.device.type == "cuda":
            reserved = max(reserved, VAE_BYTES) + SPARE_BYTES
        else:
            reserved += ram_reserve(read_ram().total)
        sizes = [layer.num_bytes for layer in self._layers.layers]
        resident = plan_vram(sizes, free, reserved, NUM_SLOTS)
        streamed = sum(sizes) - sum(sizes[index] for index in resident)
        logger.info(
            "%.1f GiB free, %.1f GiB reserved for computing: %d of %d layers stay, %.1f GiB are streamed",
            *(free / GIB, reserved / GIB, len(resident), len(sizes), streamed / GIB),
        )
        try:
            return self._layers.load_resident(resident)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._layers.evict_half()

    def size_ring(self) -> None:
        """Decide how many slots the ring has on a GPU in the section that begins.

        More slots than the least hold the first layers of a pass, which are the largest, before it begins.
        Nothing is gained on a CPU, whose file cache has what is left of the RAM.
        """
        layers, compute = self._layers, self._compute
        layers.num_slots = NUM_SLOTS
        sizes = [layers.layers[index].num_bytes for index in layers.streamed]
        if compute.device.type != "cuda" or self._was_short or not sizes:
            return
        empty_cache(compute.device)  # so that slots get segments of their own, which all come back
        room = free_vram(compute.device, compute.memory_limit) - self._activation_bytes - SPARE_BYTES
        layers.num_slots = min(max(room // max(sizes), NUM_SLOTS), len(sizes))
        logger.info("%d layers pass through the GPU at once", layers.num_slots)

    def close_ring(self) -> None:
        """Free the memory of the streamed layers, for decoding."""
        self._layers.close_ring()
        self._layers.num_slots = NUM_SLOTS
        empty_cache(self._compute.device)

    def retry_on_oom(self, work: Callable[[], _T]) -> _T:
        """Do some work; where memory runs out, free some and do it again.

        Raises:
            torch.OutOfMemoryError: there is nothing left to free.
        """
        while True:
            try:
                return work()
            except RuntimeError as error:
                if not self.can_free_after(error):
                    raise
            self.free_some()  # outside the handler, whose traceback holds tensors

    def can_free_after(self, error: RuntimeError) -> bool:
        """Return whether an error says that memory ran out, and there is some that `free_some` can free."""
        can_free = self._layers.num_slots > NUM_SLOTS or self._layers.num_resident > 0
        return can_free and is_out_of_memory(error)

    def free_some(self) -> None:
        """Free slots above the least, for the rest of the job; where there are none, half of what stays."""
        extra = self._layers.num_slots - NUM_SLOTS
        if extra > 0:
            logger.info("out of memory: %d slots are closed", extra)
            self._was_short = True
            self.close_ring()
        else:
            self._layers.evict_half()


def vae_budget(compute: Compute) -> int:
    """Return the bytes that the VAE may take now to encode or decode."""
    free = free_vram(compute.device, compute.memory_limit)
    if compute.device.type == "cuda":
        return int((free - VAE_SPARE_BYTES) / VAE_GAPS)
    return min(free // 2, CPU_VAE_BYTES)


def count_tokens(latent_frames: int, height: int, width: int) -> int:
    """Count a section's tokens for latents of `height` x `width`: its own, the history's, the text's."""
    full = -(-height // 2) * -(-width // 2)
    history = 2 * full + -(-height // 4) * -(-width // 4) + 4 * -(-height // 8) * -(-width // 8)
    return latent_frames * full + history + TEXT_TOKENS

"""The decision, once a job, whether some streamed layers are kept in RAM, after measuring two passes."""

import logging
import time

import torch

from ..ram import read_ram
from .layers import StreamedLayers
from .placement import plan_ram
from .ring import THREADS, Traffic

logger = logging.getLogger(__name__)

DECIDING_PASS = 2
"""The pass after which is decided: the first may find files uncached, the second is as fast as later ones."""


class RamTier:
    """Decides after the second pass, for the whole job: layers kept in RAM outlive a section's ring."""

    def __init__(self) -> None:
        self._passes = 0
        self._before = Traffic()

    def __call__(self, layers: StreamedLayers, begin: float) -> None:
        """Measure a pass that began at `begin` (of `time.perf_counter`)."""
        self._passes += 1
        if self._passes > DECIDING_PASS or layers.ring is None:
            return
        if layers.device.type == "cuda":
            torch.cuda.synchronize(layers.device)
        step_seconds = time.perf_counter() - begin
        before, self._before = self._before, layers.traffic
        read, took, _ = self._before.plus(before, -1)
        if self._passes < DECIDING_PASS or not read:
            return
        streamed, ram = layers.streamed, read_ram()
        sizes = [layers.layers[index].num_bytes for index in streamed]
        kept, reason = plan_ram(
            sizes, ram.available, ram.total, read * THREADS / max(took, 1e-9), step_seconds
        )
        logger.info("weights in RAM: %s", reason)
        if kept:
            layers.keep_in_ram([streamed[index] for index in kept])

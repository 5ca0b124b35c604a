"""The decision, once a job, whether some streamed layers are kept in RAM, after measuring two passes."""

import logging
import time

import torch

from ..ram import read_ram
from .layers import StreamedLayers
from .placement import plan_ram
from .ring import THREADS

logger = logging.getLogger(__name__)

DECIDING_PASS = 2
"""The pass after which is decided: the first may find files uncached, the second is as fast as later ones."""


class RamTier:
    """Decides after the second pass, for the whole job: layers kept in RAM outlive a section's ring."""

    def __init__(self) -> None:
        self._passes = 0
        self._before: tuple[object, tuple[int, float]] = None, (0, 0.0)

    def __call__(self, layers: StreamedLayers, begin: float) -> None:
        """Measure a pass that began at `begin` (of `time.perf_counter`)."""
        self._passes += 1
        if self._passes > DECIDING_PASS or layers.ring is None:
            return
        if layers.device.type == "cuda":
            torch.cuda.synchronize(layers.device)
        step_seconds = time.perf_counter() - begin
        (ring, before), self._before = self._before, (layers.ring, layers.ring.traffic)
        read, took = self._before[1]
        if ring is layers.ring:  # a new one counts from zero
            read, took = read - before[0], took - before[1]
        if self._passes == DECIDING_PASS and read:
            self._decide(layers, step_seconds, read * THREADS / max(took, 1e-9))

    def _decide(self, layers: StreamedLayers, step_seconds: float, bytes_per_second: float) -> None:
        streamed, ram = layers.streamed, read_ram()
        sizes = [layers.layers[index].num_bytes for index in streamed]
        plan = plan_ram(sizes, ram.available, ram.total, bytes_per_second, step_seconds)
        logger.info("weights in RAM: %s", plan.reason)
        if plan.kept:
            layers.keep_in_ram([streamed[index] for index in plan.kept])

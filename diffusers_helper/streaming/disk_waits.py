"""The share of a job's steps in which they wait for the disk, measured step by step."""

from .layers import StreamedLayers
from .ring import THREADS, Traffic

UNJUDGED_STEPS = 2
"""The first computed steps: files may not be in the file cache yet, and layers are kept in RAM after them."""
JUDGED_STEPS = 3
"""The fewest steps by which the disk is judged."""
LONG_FRACTION = 0.2
"""The fraction of the steps' time from which on waiting is told."""
READING_FRACTION = 0.5
"""The least part of a step in which all threads read where the disk holds it up, not the way to the GPU."""


def disk_seconds(traffic: Traffic, seconds: float) -> float:
    """Return how many seconds of a step waited for the disk, by the traffic in it."""
    is_reading = traffic.read_seconds / THREADS >= READING_FRACTION * seconds
    return min(traffic.waited, seconds) if is_reading else 0.0


class DiskWaits:
    """Adds up how long the computed steps of one job take, and wait for layers that are still being read."""

    def __init__(self, layers: StreamedLayers) -> None:
        self._layers = layers
        self._before = Traffic()
        self._steps = 0
        self._seconds = self._waited = 0.0
        self._is_told = False

    @property
    def fraction(self) -> float:
        """The fraction of the steps' time that was waiting for the disk; 0 before any is judged."""
        return self._waited / self._seconds if self._seconds else 0.0

    def add(self, seconds: float) -> None:
        """Add a computed step that took so many seconds, after the device has ended it."""
        before, self._before = self._before, self._layers.traffic
        traffic = self._before.plus(before, -1)
        self._steps += 1
        if self._steps > UNJUDGED_STEPS:
            self._seconds += seconds
            self._waited += disk_seconds(traffic, seconds)

    def take_news(self) -> float | None:
        """Return the fraction, only once, when it is long; None else."""
        is_judged = self._steps >= UNJUDGED_STEPS + JUDGED_STEPS
        if self._is_told or not is_judged or self.fraction < LONG_FRACTION:
            return None
        self._is_told = True
        return self.fraction

"""Measures for benchmarks: a process's memory, and a GPU with little of it free."""

import contextlib
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from diffusers_helper.limits import GIB


@contextlib.contextmanager
def taken_away(vram: str, device: torch.device) -> Iterator[int]:
    """Leave `vram` GiB of the GPU free (`all` leaves everything); yields the bytes taken."""
    gc.collect()
    torch.cuda.empty_cache()
    dummy = None
    if vram != "all":
        free = torch.cuda.mem_get_info()[0]
        dummy = torch.empty(max(int(free - float(vram) * GIB), 0), dtype=torch.uint8, device=device)
    try:
        yield 0 if dummy is None else dummy.numel()
    finally:
        del dummy
        torch.cuda.empty_cache()


def process_bytes() -> int:
    """Return this process's own memory: anonymous pages and pinned ones (counted as shared by the system)."""
    values = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, rest = line.partition(":")
        values[key] = rest.split()
    return (int(values["RssAnon"][0]) + int(values["RssShmem"][0])) * 1024


class ProcessPeak:
    """The most of `process_bytes` within a `with` block, watched by a thread."""

    INTERVAL = 0.02

    def __init__(self) -> None:
        self._peak = process_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "ProcessPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def peak_bytes(self) -> int:
        """Return the most so far."""
        return max(self._peak, process_bytes())

    def _watch(self) -> None:
        while not self._end.wait(self.INTERVAL):
            self._peak = max(self._peak, process_bytes())

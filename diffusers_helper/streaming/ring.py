"""A ring of buffers on the device that holds the next layers of a cycle, filled ahead by a few threads.

Each thread reads from the files into its buffers (pinned, for a GPU) and copies them to the device on a side
stream; the GPU itself waits where it must, the threads and the caller only for each other. An error in a
thread is raised in the caller that waits for its layer.
"""

import contextlib
import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..weights.checkpoint import FileSignature
from .layout import Chunk, Layer
from .reader import CHUNK_BYTES, ChunkReader

THREADS = min(max(os.cpu_count() or 1, 4), 12)
"""The number of readers. Compiled, blocks of the first kind pass by at 32 GB/s on a fast GPU, for which 6
are too few."""
STAGING_BUFFERS = 2
"""The buffers of each thread: one is read into while the other is sent."""


class Traffic(NamedTuple):
    """Bytes read from files, the seconds of all threads for that, and those that computing waited for it."""

    bytes_read: int = 0
    read_seconds: float = 0.0
    waited: float = 0.0

    def plus(self, other: "Traffic", sign: int = 1) -> "Traffic":
        """Return the sum of both, or with the sign -1 the difference."""
        return Traffic(
            self.bytes_read + sign * other.bytes_read,
            self.read_seconds + sign * other.read_seconds,
            self.waited + sign * other.waited,
        )


class _Load:
    """A layer that is being loaded into a slot."""

    def __init__(
        self, slot: int, free: "torch.cuda.Event | None", chunks: int, kept: torch.Tensor | None = None
    ) -> None:
        """
        Args:
            free: the slot's last use is over.
            kept: the layer's flat CPU buffer, from which it is copied; None to read it from its files.
        """
        self.slot = slot
        self.kept = kept
        self.arrived: torch.cuda.Event | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._free = free
        self._missing = chunks
        self._lock = threading.Lock()

    def wait_for_slot(self, stream: "torch.cuda.Stream") -> None:
        """Have what is sent over the stream from now on wait for the slot. All chunks go over one: once."""
        with self._lock:
            if self._free is not None:
                stream.wait_event(self._free)
                self._free = None

    def chunk_done(self, stream: "torch.cuda.Stream | None", error: BaseException | None = None) -> None:
        """Count a chunk that is sent or given up; after the last one no thread touches the slot any more."""
        with self._lock:
            self.error = self.error or error
            self._missing -= 1
            if self._missing == 0:
                try:
                    if self.error is None and stream is not None:
                        self.arrived = stream.record_event()
                except RuntimeError as lost:  # the GPU; nobody may wait for ever
                    self.error = lost
                self.done.set()


class WeightRing:
    """Hands out the layers of a cycle one after the other, for ever: `acquire`, use, `release`.

    Used as a `with` block; afterwards the threads are gone and the buffers are free.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        num_slots: int,
        device: torch.device,
        signatures: dict[Path, FileSignature],
        kept: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        """
        Args:
            layers: the cycle, in order.
            num_slots: buffers, each for the largest layer; never more than there are layers.
            kept: flat CPU buffers of some layers, by their position in the cycle, that need not be read.

        Raises:
            torch.OutOfMemoryError: there is too little memory for the slots.
        """
        self.layers = list(layers)
        self.kept = dict(kept or {})
        self.slot_bytes = max(layer.num_bytes for layer in self.layers)
        self.slots = [
            torch.empty(self.slot_bytes, dtype=torch.uint8, device=device)
            for _ in range(min(num_slots, len(self.layers)))
        ]
        self.position = 0
        """The position in the cycle of the layer that `acquire` gives next."""
        self._device = device
        self._chunks = [layer.chunks(CHUNK_BYTES) for layer in self.layers]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._readers = [ChunkReader(signatures) for _ in range(THREADS)]
        self._waited = 0.0
        self._waits: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        """The GPU's arrivals at layers and the moments at which it could go on, not yet summed up."""
        self._jobs: queue.SimpleQueue[tuple[_Load, Chunk] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._loads: deque[_Load] = deque()  # of the layer that is next and those behind it, without a gap

    def __enter__(self) -> "WeightRing":
        for number, reader in enumerate(self._readers):
            name = f"weights-{number}"
            thread = threading.Thread(target=self._work, args=(reader,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        for slot in range(len(self.slots)):
            self._enqueue(slot)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        if self._stream is not None:
            self._stream.synchronize()
        self.slots.clear()
        self._loads.clear()

    @property
    def has_failed(self) -> bool:
        """True if a layer that is to come could not be loaded."""
        return any(load.error is not None for load in self._loads)

    @property
    def traffic(self) -> Traffic:
        """The traffic so far; on a GPU, the waits that it has behind it."""
        while self._waits and self._waits[0][1].query():
            arrival, go = self._waits.popleft()
            self._waited += arrival.elapsed_time(go) / 1000
        read, seconds = sum(r.bytes_read for r in self._readers), sum(r.seconds for r in self._readers)
        return Traffic(read, seconds, self._waited)

    def acquire(self) -> int:
        """Wait for the next layer; return the index of its slot. Raises the errors of `ChunkReader.read`."""
        load = self._loads[0]
        begin, arrival = time.perf_counter(), self._mark()
        load.done.wait()
        if load.error is not None:
            raise load.error
        if load.arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(load.arrived)
        if arrival is None or (go := self._mark()) is None:
            self._waited += time.perf_counter() - begin
        else:  # this thread is ahead of the GPU, which may not wait at all
            self._waits.append((arrival, go))
        return load.slot

    def _mark(self) -> "torch.cuda.Event | None":
        """Return an event that tells when a GPU gets here; None on a CPU."""
        if self._stream is None:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def release(self) -> None:
        """Fill the slot of the layer got last, whose use is over or enqueued, with the next one missing."""
        slot = self._loads.popleft().slot
        self.position = (self.position + 1) % len(self.layers)
        self._enqueue(slot)

    def _enqueue(self, slot: int) -> None:
        """Enqueue the chunks of the next layer to be loaded, into a slot."""
        position = (self.position + len(self._loads)) % len(self.layers)
        chunks = self._chunks[position]
        free = None
        if self._stream is not None:
            free = torch.cuda.current_stream(self._device).record_event()
        load = _Load(slot, free, len(chunks), self.kept.get(position))
        self._loads.append(load)
        for chunk in chunks:
            self._jobs.put((load, chunk))

    def _work(self, reader: ChunkReader) -> None:
        staging: Iterator[tuple[torch.Tensor, torch.cuda.Event]] | None = None
        with contextlib.closing(reader), torch.inference_mode():
            while (job := self._jobs.get()) is not None:
                load, chunk = job
                try:
                    if not self._closing and load.error is None:
                        if self._stream is not None:
                            staging = staging or _staging(self._stream)
                        self._load_chunk(load, chunk, reader, staging)
                except BaseException as error:  # noqa: BLE001  (raised again in the thread that waits)
                    load.chunk_done(self._stream, error)
                else:
                    load.chunk_done(self._stream)
                del job, load  # an error's traceback has this frame, and with it the slot

    def _load_chunk(
        self,
        load: _Load,
        chunk: Chunk,
        reader: ChunkReader,
        staging: Iterator[tuple[torch.Tensor, "torch.cuda.Event"]] | None,
    ) -> None:
        target = self.slots[load.slot][chunk.offset : chunk.offset + chunk.num_bytes]
        if staging is None:
            return _fetch(load, chunk, reader, target)
        buffer, sent = next(staging)
        sent.synchronize()
        buffer = buffer[: chunk.num_bytes]
        _fetch(load, chunk, reader, buffer)
        assert self._stream is not None
        load.wait_for_slot(self._stream)
        target.copy_(buffer, non_blocking=True)
        sent.record(self._stream)


def _staging(stream: "torch.cuda.Stream") -> Iterator[tuple[torch.Tensor, "torch.cuda.Event"]]:
    """Make the calling thread's buffers and yield them in turn, each with the event after which it is free.

    PyTorch keeps pinned memory for the next ring: only a process's first one waits for the driver.
    """
    torch.cuda.set_stream(stream)  # of this thread only
    return itertools.cycle([(_pinned(CHUNK_BYTES), torch.cuda.Event()) for _ in range(STAGING_BUFFERS)])


def _pinned(num_bytes: int) -> torch.Tensor:
    """Allocate a buffer that a GPU can fetch from by itself; a plain one if pinned memory is refused."""
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:
        return torch.empty(num_bytes, dtype=torch.uint8)


def _fetch(load: _Load, chunk: Chunk, reader: ChunkReader, target: torch.Tensor) -> None:
    if load.kept is None:
        reader.read(chunk, target)
    else:
        target.copy_(load.kept[chunk.offset : chunk.offset + chunk.num_bytes])

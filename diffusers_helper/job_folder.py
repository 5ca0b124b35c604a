"""What a job has made so far, on the disk: nothing here grows in memory with the length of the video.

Sections come from the video's end backwards. Each is one file of frames and one of latents, written
whole and never changed: a later section's file holds the cross-fade into the one before it, whose first
frames are then skipped.
"""

import hashlib
import json
import math
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from .errors import InputError
from .whole_file import whole_file

BYTES_PER_PIXEL = 3
_OURS = re.compile(r"(section_\d+\.(frames|latents)|(closed|so_far)_\d+\.mp4)(\.part)?")


@dataclass(frozen=True)
class _Stored:
    path: Path
    frames: int


class JobFolder:
    """The working folder of one job. Used as a `with` block: it is gone afterwards unless `keep` is set.

    `overlap` is the number of frames that two sections share: the first ones of what is there can still
    change.
    """

    def __init__(self, path: Path, height: int, width: int, overlap: int) -> None:
        self.path = path
        self.keep = False
        self._lock = FileLock(_lock_file(path), thread_local=False)
        self._shape = (height, width, BYTES_PER_PIXEL)
        self.overlap = overlap
        self._sections: list[_Stored] = []
        self._latents: list[_Stored] = []

    def __enter__(self) -> "JobFolder":
        try:
            self._lock.acquire(timeout=0)  # the system lets go of it if this process dies
        except Timeout as error:
            raise InputError("output_busy", path=str(self.path.with_suffix(""))) from error
        try:
            self._make_empty()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    def _make_empty(self) -> None:
        if self.path.exists():
            if any(not _OURS.fullmatch(path.name) for path in self.path.iterdir()):
                raise InputError("output_taken", path=str(self.path))
            shutil.rmtree(self.path)  # what a run that was killed has left
        self.path.mkdir(parents=True)

    def keep_as(self, path: Path) -> None:
        """Keep the folder, under a name that no other run takes for its own."""
        number = 1
        while path.exists():
            number += 1
            path = path.with_name(f"{path.name.rstrip('0123456789')}{number}")
        self.keep, self.path = True, self.path.rename(path)

    @property
    def num_sections(self) -> int:
        return len(self._sections)

    @property
    def num_frames(self) -> int:
        """Pixel frames so far, each counted once."""
        total = sum(section.frames for section in self._sections)
        return total - self.overlap * max(len(self._sections) - 1, 0)

    def add_frames(self, frames: torch.Tensor) -> None:
        """Put a decoded section in front: frames `(n, height, width, 3)`, float 0..255.

        Its last `overlap` frames fade linearly into the first ones there.
        """
        if self._sections:
            frames = torch.cat([frames[: -self.overlap], self._cross_fade(frames[-self.overlap :])])
        path = self.path / f"section_{len(self._sections):03d}.frames"
        with whole_file(path) as part, part.open("wb") as file:
            for frame in frames:
                file.write(frame.round().to(torch.uint8).contiguous().numpy().tobytes())
        self._sections.append(_Stored(path, len(frames)))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames `start` to `stop` of what is there, in the order of the video."""
        stop = self.num_frames if stop is None else stop
        position = 0
        for order, section in enumerate(reversed(self._sections)):
            skipped = self.overlap if order else 0
            begin, end = max(start - position, 0), min(stop - position, section.frames - skipped)
            if begin < end:
                yield from self._read(section, begin + skipped, end + skipped)
            position += section.frames - skipped

    def add_latents(self, latents: torch.Tensor) -> None:
        """Put latents `(1, channels, t, h, w)` float32 in front."""
        path = self.path / f"section_{len(self._latents):03d}.latents"
        with whole_file(path) as part:
            part.write_bytes(latents[0].contiguous().numpy().tobytes())
        self._latents.append(_Stored(path, latents.shape[2]))

    def save_latents(self, path: Path, channels: int, metadata: Mapping[str, str]) -> None:
        """Write all latents as `latents` `[1, channels, t, h/8, w/8]` float32 in a safetensors file."""
        height, width = self._shape[0] // 8, self._shape[1] // 8
        shape = [1, channels, sum(stored.frames for stored in self._latents), height, width]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, math.prod(shape) * 4]}
        header = json.dumps({"__metadata__": dict(metadata), "latents": entry}).encode()
        header += b" " * (-len(header) % 8)
        with whole_file(path) as part, part.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for channel in range(channels):
                for stored in reversed(self._latents):
                    size = stored.frames * height * width * 4
                    with stored.path.open("rb") as source:
                        source.seek(channel * size)
                        file.write(source.read(size))

    def _cross_fade(self, tail: torch.Tensor) -> torch.Tensor:
        there = np.stack(list(self._read(self._sections[-1], 0, self.overlap)))
        weights = torch.linspace(1, 0, self.overlap)[:, None, None, None]
        return weights * tail + (1 - weights) * torch.from_numpy(there).float()

    def _read(self, section: _Stored, begin: int, end: int) -> Iterator[np.ndarray]:
        size = int(np.prod(self._shape))
        with section.path.open("rb") as file:
            file.seek(begin * size)
            for _ in range(begin, end):
                yield np.frombuffer(file.read(size), dtype=np.uint8).reshape(self._shape)


def _lock_file(path: Path) -> Path:
    """Where two runs with the same folder meet, on this machine."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    return Path(tempfile.gettempdir()) / f"endframe-ichi-{digest[:20]}.lock"


def bytes_needed(pixel_frames: int, sections: int, overlap: int, height: int, width: int) -> int:
    """About what a job takes on the disk while it runs: raw frames with their overlaps, and the video."""
    raw = (pixel_frames + overlap * (sections - 1)) * height * width * BYTES_PER_PIXEL
    return raw + raw // 10

"""The working folder of a job: its finished sections, on the disk and not in memory, also after a crash.

Sections are made from the video's end backwards. Each is one file of latents and one of frames, written
atomically and never changed: a later section's file holds its blend with the one before it, whose first
frames are then skipped, as many as that file says. Every file holds a checksum and the job's fingerprint. The
next run resumes behind the last file that is intact.
"""

import contextlib
import json
import math
import re
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files.atomic import atomic_write, delete_file
from ..files.checksummed import checksummed_file, read_metadata
from ..files.exclusive_lock import exclusive_lock
from .fingerprint import JobFingerprint
from .section_files import PARTIAL_PREFIX, SECTION, Kind, holds_sections, list_partial_videos, section_file

LATENT_CHANNELS = 16
LOCK, REQUEST = "lock", "request.json"
_KNOWN_NAMES = re.compile(
    rf"{LOCK}|({re.escape(REQUEST)}|{SECTION.pattern}|(closed_|{PARTIAL_PREFIX})\d+\.mp4)(\.part)?"
    r"|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini"
)
"""The names that may occur there, also those of the files that file managers create."""


@dataclass(frozen=True)
class _Stored:
    """The file of a section: its number of frames, and all of its metadata."""

    path: Path
    frames: int
    metadata: Mapping[str, Any]


class JobFolder:
    """The working folder of one job: a `with` block, in which no other run can use it.

    Its files stay afterwards, unless `done` was set. `overlap` is the most frames that two sections share:
    as many at the video's beginning can still change.
    """

    def __init__(self, path: Path, height: int, width: int, overlap: int) -> None:
        self.path = path
        self.done = False
        self.overlap = overlap
        self._shape = (height, width, 3)
        self._lock = contextlib.ExitStack()
        self._fingerprint = JobFingerprint("", "", 0)
        self._sections: list[_Stored] = []
        self._latents: list[_Stored] = []

    def __enter__(self) -> "JobFolder":
        """Raise InputError where another run uses the folder, or it holds files that are not a job's."""
        busy = InputError("output_busy", path=str(self.path))
        self._lock.enter_context(exclusive_lock(self.path / LOCK, busy))
        if any(not _KNOWN_NAMES.fullmatch(path.name) for path in self.path.iterdir()):
            self._lock.close()
            raise InputError("output_taken", path=str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        """Delete a folder that is done or holds no section; what cannot be deleted stays."""
        with contextlib.suppress(OSError):
            if self.done or not holds_sections(self.path):
                for path in self._others():
                    delete_file(path)
        self._lock.close()
        with contextlib.suppress(OSError):
            if not self._others():
                (self.path / LOCK).unlink(missing_ok=True)  # Windows' filelock deletes it
                self.path.rmdir()

    def _others(self) -> list[Path]:
        """Return all files but the lock."""
        return [path for path in self.path.iterdir() if path.name != LOCK]

    @property
    def num_bytes(self) -> int:
        """The bytes of all stored frames, also of sections that are not resumed."""
        return sum(path.stat().st_size for path in _section_files(self.path) if path.suffix == ".frames")

    # -- resuming --------------------------------------------------------------------------------------------

    def resume(self, fingerprint: JobFingerprint, is_final: Sequence[bool]) -> int | None:
        """Begin or resume the job with this fingerprint: its intact sections become this folder's sections.

        Intact sections that cannot be used now stay until new ones replace them.

        Args:
            is_final: for each section of the plan whether it is the last one made, which joins the start
                picture. A stored section of the other kind is not used.

        Returns:
            The number of the section whose file was damaged, None where none was.

        Raises:
            OSError: a file cannot be read now; nothing is deleted.
        """
        self._fingerprint = fingerprint
        for number, final in enumerate(is_final):
            latents = self._find(number, "latents")
            if latents is None or latents.metadata["closing"] != final:
                break
            self._latents.append(latents)
            frames = self._find(number, "frames") if number == self.num_sections else None
            self._sections += [frames] if frames is not None else []
        return self._clear()

    def write_request(self, packed: Mapping[str, object]) -> None:
        """Write the request beside the sections, for people who look into the folder."""
        with atomic_write(self.path / REQUEST) as part:
            part.write_text(json.dumps(packed, ensure_ascii=False), "utf-8")

    def _find(self, number: int, kind: Kind) -> _Stored | None:
        """The file of a section, if it is intact and of this job."""
        path = section_file(self.path, number, kind)
        metadata = read_metadata(path)
        if metadata is None or not asdict(self._fingerprint).items() <= metadata.items():
            return None
        return _Stored(path, metadata["frames"], metadata)

    def _clear(self) -> int | None:
        """Delete damaged sections and partial files; returns the number of the first damaged section."""
        used = {stored.path for stored in (*self._latents, *self._sections)}
        used |= set(list_partial_videos(self.path))  # somebody may be watching
        unused = {path for path in self._others() if path not in used}
        sections = {path for path in unused if SECTION.fullmatch(path.name)}
        damaged = {path for path in sections if read_metadata(path) is None}
        for path in unused - (sections - damaged):
            delete_file(path)
        return min(map(_number_of, damaged), default=None)

    def _discard_after(self, number: int, kind: Kind) -> None:
        """Delete an earlier run's files that depend on the one that is written next."""
        for path in _section_files(self.path):
            is_later = _number_of(path) > number
            is_decoded_from_it = kind == "latents" and path == section_file(self.path, number, "frames")
            if is_decoded_from_it or (is_later and (kind == "latents" or path.suffix == ".frames")):
                delete_file(path)

    # -- frames ----------------------------------------------------------------------------------------------

    @property
    def num_sections(self) -> int:
        """The number of finished sections: sampled and decoded."""
        return len(self._sections)

    @property
    def num_frames(self) -> int:
        """The number of pixel frames so far, each counted once."""
        return sum(section.frames for section in self._sections) - sum(map(self._shared, self._sections[1:]))

    def add_frames(
        self, frames: Iterable[torch.Tensor], count: int, weights: Sequence[float] = ()
    ) -> Generator[int, None, None]:
        """Put a decoded section in front, writing each frame as it comes; yields how many are written.

        Args:
            frames: `count` of them, `(height, width, 3)`, float 0..255. If one cannot be made, nothing
                changes.
            weights: of its last frames, which are blended with as many first ones there; at most `overlap`,
                none for the first section.
        """
        with self._added(self._sections, "frames", frames=count, shared=len(weights)) as write:
            for number, frame in enumerate(self._blended(frames, count, weights), start=1):
                write(frame.round().to(torch.uint8).numpy().tobytes())
                yield number

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield frames `start` to `stop` `(height, width, 3)` uint8 in the order of the video."""
        stop = self.num_frames if stop is None else stop
        position = skipped = 0
        for section in reversed(self._sections):
            begin, end = max(start - position, 0), min(stop - position, section.frames - skipped)
            if begin < end:
                yield from self._read(section, begin + skipped, end + skipped)
            position += section.frames - skipped
            skipped = self._shared(section)

    def _shared(self, section: _Stored) -> int:
        """Return how many frames at a section's end replace the first ones of the next in the video.

        A file of an earlier version does not hold it: there, it was `overlap` between every two.
        """
        return section.metadata.get("shared", self.overlap)

    def _blended(
        self, frames: Iterable[torch.Tensor], count: int, weights: Sequence[float]
    ) -> Iterator[torch.Tensor]:
        """Blend the last frames with the first ones there. Raises ValueError where not `count` came."""
        there = self._read(self._sections[-1], 0, len(weights)) if weights else iter(())
        for frame, weight in zip(frames, [None] * (count - len(weights)) + [*weights], strict=True):
            if weight is None:
                yield frame
            else:
                yield weight * frame + (1 - weight) * torch.from_numpy(next(there)).float()

    def _read(self, section: _Stored, begin: int, end: int) -> Iterator[np.ndarray]:
        size = math.prod(self._shape)
        with section.path.open("rb") as file:
            file.seek(begin * size)
            for _ in range(begin, end):
                yield np.fromfile(file, np.uint8, size).reshape(self._shape)

    # -- latents ---------------------------------------------------------------------------------------------

    @property
    def num_latents(self) -> int:
        """The number of sampled sections; the newest may not be decoded yet."""
        return len(self._latents)

    def add_latents(self, latents: torch.Tensor, is_final: bool, evaluations: list[int]) -> None:
        """Put a sampled section in front.

        Args:
            latents: `(1, channels, t, h, w)` float32 on the CPU.
            evaluations: for each step 1 where the transformer's blocks ran, else 0.
        """
        metadata = {"frames": latents.shape[2], "closing": is_final, "evaluations": evaluations}
        with self._added(self._latents, "latents", **metadata) as write:
            write(latents[0].contiguous().numpy().tobytes())

    def latents(self, number: int) -> torch.Tensor:
        """Read the latents `(1, channels, t, h, w)` float32 of a sampled section."""
        stored = self._latents[number]
        shape = (1, LATENT_CHANNELS, stored.frames, self._shape[0] // 8, self._shape[1] // 8)
        return torch.from_numpy(np.fromfile(stored.path, np.float32, math.prod(shape))).reshape(shape)

    def save_latents(self, path: Path) -> None:
        """Write all latents as `latents` `(1, channels, t, h/8, w/8)` float32 in a safetensors file.

        Its metadata are the seed and each section's evaluations (see `add_latents`).
        """
        evaluations = json.dumps([stored.metadata["evaluations"] for stored in self._latents])
        metadata = {"transformer_evaluations": evaluations, "seed": str(self._fingerprint.seed)}
        count = sum(stored.frames for stored in self._latents)
        shape = [1, LATENT_CHANNELS, count, self._shape[0] // 8, self._shape[1] // 8]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * math.prod(shape)]}
        header = json.dumps({"__metadata__": metadata, "latents": entry}).encode()
        header += b" " * (-len(header) % 8)  # by hand: the library writes metadata in any order
        with atomic_write(path) as part, part.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for channel in range(LATENT_CHANNELS):  # one at a time: together they would fill the memory
                for stored in reversed(self._latents):
                    size = 4 * stored.frames * shape[3] * shape[4]
                    file.write(np.fromfile(stored.path, np.uint8, size, offset=channel * size).tobytes())

    # -- files -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _added(
        self, sections: list[_Stored], kind: Kind, **metadata: Any
    ) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that writes a kind's next file, which joins the list when the block ends well."""
        path = section_file(self.path, len(sections), kind)
        with checksummed_file(path, metadata | asdict(self._fingerprint)) as write:
            yield write
            self._discard_after(len(sections), kind)  # not before all of it could be made
        sections.append(_Stored(path, metadata["frames"], metadata))


def stored_fingerprint(folder: Path) -> JobFingerprint | None:
    """Read the fingerprint of a job's folder from its first intact file; None where there is none."""
    for path in sorted(_section_files(folder)) if folder.is_dir() else []:
        metadata = read_metadata(path)
        if metadata is not None:
            return JobFingerprint(metadata["identity"], metadata["models"], metadata["seed"])
    return None


def _section_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if SECTION.fullmatch(path.name)]


def _number_of(path: Path) -> int:
    """Parse the number in a section file's name."""
    return int(path.stem.partition("_")[2])

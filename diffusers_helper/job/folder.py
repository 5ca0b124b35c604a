"""What a job has made so far, on the disk: nothing here grows in memory with the length of the video, and
nothing is lost with the process that made it.

Sections come from the video's end backwards. Each is one file of latents and one of frames, written whole and
never changed: a later section's file holds the join with the one before it, whose first frames are then
skipped, as many as that file says. Every file is sealed, and says which job it belongs to. Who opens the
folder again goes on behind the last file that is whole.
"""

import contextlib
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..files.atomic import atomic_write
from ..files.checksummed import read_metadata, write_checksummed
from ..files.only_one import only_one
from .fingerprint import JobFingerprint
from .section_files import PARTIAL_PREFIX, SECTION, Kind, list_partial_videos, section_file

BYTES_PER_PIXEL = 3
LOCK, REQUEST = "lock", "request.json"
_OURS = re.compile(
    rf"{LOCK}|({re.escape(REQUEST)}|{SECTION.pattern}|(closed_|{PARTIAL_PREFIX})\d+\.mp4)(\.part)?"
    r"|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini"
)
"""Names that may lie there: also those that file managers leave in every folder that somebody looks at."""


@dataclass(frozen=True)
class _Stored:
    """A file of a section: how many frames it has, and what else it says of itself."""

    path: Path
    frames: int
    facts: Mapping[str, Any]


class JobFolder:
    """The working folder of one job. Used as a `with` block, in which no other run can use it.

    What was made stays in it afterwards, unless `done` was set. `overlap` is the most frames that two
    sections share: so many first ones of what is there can still change.
    """

    def __init__(self, path: Path, height: int, width: int, overlap: int) -> None:
        self.path = path
        self.done = False
        self.overlap = overlap
        self._shape = (height, width, BYTES_PER_PIXEL)
        self._lock = contextlib.ExitStack()
        self._mark = JobFingerprint("", "", 0)
        self._sections: list[_Stored] = []
        self._latents: list[_Stored] = []

    def __enter__(self) -> "JobFolder":
        """Raises InputError where another run has the folder, or something lies in it that is not ours."""
        self._lock.enter_context(only_one(self.path / LOCK, InputError("output_busy", path=str(self.path))))
        if any(not _OURS.fullmatch(path.name) for path in self.path.iterdir()):
            self._lock.close()
            raise InputError("output_taken", path=str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        """A folder that is done, or in which nothing was made, is gone; what cannot be deleted stays."""
        with contextlib.suppress(OSError):
            if self.done or not any(_section_files(self.path)):
                for path in self._others():
                    path.unlink()
        self._lock.close()
        with contextlib.suppress(OSError):
            if not self._others():
                (self.path / LOCK).unlink()
                self.path.rmdir()

    def _others(self) -> list[Path]:
        """All files but the lock."""
        return [path for path in self.path.iterdir() if path.name != LOCK]

    @property
    def num_bytes(self) -> int:
        """What the sections' frames take on the disk, also those that are not taken up yet."""
        return sum(path.stat().st_size for path in _section_files(self.path) if path.suffix == ".frames")

    # -- going on ------------------------------------------------------------------------------------------

    def stored_fingerprint(self) -> JobFingerprint | None:
        """`stored_fingerprint` of this folder."""
        return stored_fingerprint(self.path)

    def resume(self, mark: JobFingerprint, is_final: Sequence[bool]) -> int | None:
        """Begin a job, or go on with it: all whole sections of it become this folder's sections.

        Whole sections that cannot be used now stay until others take their place.

        Args:
            is_final: for each section of the plan whether it is the one that joins the start image. A kept
                section that is of the other kind cannot be used.

        Returns:
            The number of the section whose file was damaged, None where none was.

        Raises:
            OSError: a file cannot be read now; nothing is deleted.
        """
        self._mark = mark
        for number, is_closing in enumerate(is_final):
            stored = self._find(number, "latents")
            if stored is None or stored.facts["closing"] != is_closing:
                break
            self._latents.append(stored)
        for number in range(self.num_latents):
            stored = self._find(number, "frames")
            if stored is None:
                break
            self._sections.append(stored)
        return self._clear()

    def write_request(self, packed: Mapping[str, object]) -> None:
        """Leave the request beside the sections, for a person who wonders what they are."""
        with atomic_write(self.path / REQUEST) as part:
            part.write_text(json.dumps(packed, ensure_ascii=False), "utf-8")

    def _find(self, number: int, kind: Kind) -> _Stored | None:
        """A section's file, if it is whole and of this job."""
        path = section_file(self.path, number, kind)
        facts = read_metadata(path)
        is_own = facts is not None and asdict(self._mark).items() <= facts.items()
        return _Stored(path, facts["frames"], facts) if facts is not None and is_own else None

    def _clear(self) -> int | None:
        """Delete damaged sections and halves of files; the number of the first damaged section."""
        used = {stored.path for stored in (*self._latents, *self._sections)}
        used |= set(list_partial_videos(self.path))  # somebody may watch them
        unused = {path for path in self._others() if path not in used}
        sections = {path for path in unused if SECTION.fullmatch(path.name)}
        damaged = {path for path in sections if read_metadata(path) is None}
        for path in unused - (sections - damaged):
            path.unlink()
        return min(map(_number_of, damaged), default=None)

    def _discard_after(self, number: int, kind: Kind) -> None:
        """Delete what an earlier run made on top of the file that is written next."""
        for path in _section_files(self.path):
            is_behind = _number_of(path) > number
            is_made_of_it = kind == "latents" and path == section_file(self.path, number, "frames")
            if is_made_of_it or (is_behind and (kind == "latents" or path.suffix == ".frames")):
                path.unlink()

    # -- frames ----------------------------------------------------------------------------------------------

    @property
    def num_sections(self) -> int:
        """Sections that are finished: sampled and decoded."""
        return len(self._sections)

    @property
    def num_frames(self) -> int:
        """Pixel frames so far, each counted once."""
        return sum(section.frames for section in self._sections) - sum(map(self._shared, self._sections[1:]))

    def add_frames(self, frames: Iterable[torch.Tensor], count: int, weights: Sequence[float] = ()) -> None:
        """Put a decoded section in front, each frame as it comes.

        Args:
            frames: `count` of them, `(height, width, 3)`, float 0..255. Where one cannot be made, nothing
                changes.
            weights: of the last ones, where they meet as many first ones there; at most `overlap`, none
                for the first section.
        """
        content = (
            frame.round().to(torch.uint8).numpy().tobytes() for frame in self._joined(frames, count, weights)
        )
        facts = {"frames": count, "shared": len(weights)}
        self._sections.append(self._write(len(self._sections), "frames", content, **facts))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Frames `start` to `stop` of what is there, in the order of the video."""
        stop = self.num_frames if stop is None else stop
        position = skipped = 0
        for section in reversed(self._sections):
            begin, end = max(start - position, 0), min(stop - position, section.frames - skipped)
            if begin < end:
                yield from self._read(section, begin + skipped, end + skipped)
            position += section.frames - skipped
            skipped = self._shared(section)

    def _shared(self, section: _Stored) -> int:
        """How many first frames of the one after it in the video a section's last ones take the place of.

        A file of an earlier version does not say: with that, it was `overlap` between every two.
        """
        return section.facts.get("shared", self.overlap)

    def _joined(
        self, frames: Iterable[torch.Tensor], count: int, weights: Sequence[float]
    ) -> Iterator[torch.Tensor]:
        """The frames, the last ones faded into those that are there. Raises ValueError: not `count` came."""
        there = self._read(self._sections[-1], 0, len(weights)) if weights else iter(())
        begin, number = count - len(weights), 0
        for number, frame in enumerate(frames, 1):
            if begin < number <= count:
                weight, old = weights[number - begin - 1], torch.from_numpy(next(there).copy())
                frame = weight * frame + (1 - weight) * old.float()
            yield frame
        if number != count:
            raise ValueError(f"{number} frames instead of {count}")

    def _read(self, section: _Stored, begin: int, end: int) -> Iterator[np.ndarray]:
        size = int(np.prod(self._shape))
        with section.path.open("rb") as file:
            file.seek(begin * size)
            for _ in range(begin, end):
                yield np.frombuffer(file.read(size), dtype=np.uint8).reshape(self._shape)

    # -- latents ---------------------------------------------------------------------------------------------

    @property
    def num_latents(self) -> int:
        """Sections that are sampled; the newest may not be decoded yet."""
        return len(self._latents)

    def add_latents(self, latents: torch.Tensor, is_closing: bool, evaluations: list[int]) -> None:
        """Put a sampled section in front: latents `(1, channels, t, h, w)` float32, and for each of its steps
        whether the model's blocks ran."""
        facts = {"frames": latents.shape[2], "closing": is_closing, "evaluations": evaluations}
        content = [latents[0].contiguous().numpy().tobytes()]
        self._latents.append(self._write(len(self._latents), "latents", content, **facts))

    def latents(self, number: int, channels: int) -> torch.Tensor:
        """The latents of a sampled section, as they were added."""
        stored = self._latents[number]
        shape = (1, channels, stored.frames, *self._latent_size)
        with stored.path.open("rb") as file:
            values = np.frombuffer(file.read(math.prod(shape) * 4), dtype=np.float32)
        return torch.from_numpy(values.copy()).reshape(shape)

    @property
    def evaluations(self) -> list[list[int]]:
        """For each sampled section and step whether the blocks ran."""
        return [stored.facts["evaluations"] for stored in self._latents]

    def save_latents(self, path: Path, channels: int, metadata: Mapping[str, str]) -> None:
        """Write all latents as `latents` `[1, channels, t, h/8, w/8]` float32 in a safetensors file."""
        height, width = self._latent_size
        shape = [1, channels, sum(stored.frames for stored in self._latents), height, width]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, math.prod(shape) * 4]}
        header = json.dumps({"__metadata__": dict(metadata), "latents": entry}).encode()
        header += b" " * (-len(header) % 8)
        with atomic_write(path) as part, part.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            for channel in range(channels):
                for stored in reversed(self._latents):
                    size = stored.frames * height * width * 4
                    with stored.path.open("rb") as source:
                        source.seek(channel * size)
                        file.write(source.read(size))

    @property
    def _latent_size(self) -> tuple[int, int]:
        return self._shape[0] // 8, self._shape[1] // 8

    # -- files -----------------------------------------------------------------------------------------------

    def _write(self, number: int, kind: Kind, content: Iterable[bytes], **facts: Any) -> _Stored:
        def make_way_then() -> Iterator[bytes]:
            yield from content
            self._discard_after(number, kind)  # not before all of it could be made

        path = section_file(self.path, number, kind)
        write_checksummed(path, make_way_then(), facts | asdict(self._mark))
        return _Stored(path, facts["frames"], facts)


def stored_fingerprint(folder: Path) -> JobFingerprint | None:
    """Whose sections lie in a job's folder, by the first file that is whole; None where there is none."""
    for path in sorted(_section_files(folder)) if folder.is_dir() else []:
        facts = read_metadata(path)
        if facts is not None:
            return JobFingerprint(facts["identity"], facts["models"], facts["seed"])
    return None


def _section_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if SECTION.fullmatch(path.name)]


def _number_of(path: Path) -> int:
    """The number in a section file's name."""
    return int(path.stem.partition("_")[2])


def bytes_needed(decoded_frames: int, height: int, width: int) -> int:
    """About what a job's sections take on the disk: raw frames, with those that two sections share."""
    return decoded_frames * height * width * BYTES_PER_PIXEL

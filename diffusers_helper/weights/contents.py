"""The check that files hold weights at all, by small samples: behind a right header there may be nothing.

A download manager reserves the room first, a crash loses pages, a broken disk returns others: then a file is
zeros, one number, one block again and again, or noise, wholly or in part. Each file is looked at once, and
remembered with its signature. Knows no torch and no model.

So that no good file is refused, only matrices are judged: biases may be zeros, and norms ones. An embedding
table ends with rows that no token uses, so its last `TABLE_TAIL` is blank only if most of the table is. A
dead row or channel is shorter than `MAX_WINDOW_BYTES`, and no matrix in use is constant for longer. Samples
are judged by what no training makes: numbers that are not finite, an eighth above `HUGE`, or a whole file
below `TINY` or without small ones.
"""

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, StopRequested
from ..files.atomic import atomic_write
from .checkpoint import StoredTensor, read_exactly, unreadable
from .model_files import ModelFiles

PAGE_BYTES = 4096
"""Bytes of a sample, and of the smallest matrix that is judged."""
MIN_SAMPLES = 256
"""Samples of a file at least, if it is large enough; a small one is read whole."""
MAX_STEP = 2**22
"""Bytes between two samples at most: ten thousand samples of all models, two seconds from a cold SSD.

A shorter range may be missed: what a crash or a download loses comes in larger pieces, or in many."""
MAX_WINDOW_BYTES = 2**18
"""Bytes from a sample of one number on that must be that number, too: more than a dead channel of the VAE."""
REPEATS = 3
"""The number of equal samples that cannot be tied weights, which are stored twice."""
HUGE, TINY = 2.0**14, 2.0**-40
FRESH_SECONDS = 60.0
"""The age from which a file is remembered: a newer one may still be lost from the disk's cache in a crash."""
TABLES = ("embed_tokens", "token_embedding", "position_embedding")
"""Parts of the names of embedding tables."""
TABLE_TAIL = 1 / 16
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1}
"""Bytes of a number, of the formats in which weights are stored."""


def record_in(cache: Path) -> Path:
    """Return the file in the app's cache that names the files which were found good."""
    return cache / "weights_checked.json"


def check_contents(files: ModelFiles, record: Path | None, stop: threading.Event | None = None) -> None:
    """Check samples of all weights; files that the `record` names as they are now are not read.

    On a hard disk this may take a minute. Setting `stop` ends it; files read by then are remembered.

    Raises:
        InputError: a file cannot be read, or holds no weights at a place.
        MachineError: no file can be opened now.
    """
    known = {} if record is None else _read_record(record)
    found = dict(known)
    with contextlib.suppress(StopRequested):
        for path, stored in _by_file(files):
            try:
                signature = _signature(path)
                if known.get(str(path)) != signature:
                    _FileCheck(path, stop or threading.Event()).run(stored)
                    if time.time() - path.stat().st_mtime > FRESH_SECONDS:
                        found[str(path)] = signature
            except OSError as error:
                raise unreadable(path, error) from error
    if record is not None and found != known:
        _write_record(record, found)


def _by_file(files: ModelFiles) -> Iterator[tuple[Path, dict[str, StoredTensor]]]:
    """Yield the files of all parts, each with its tensors by their names."""
    for part in vars(files).values():
        tensors: dict[Path, dict[str, StoredTensor]] = defaultdict(dict)
        for name, tensor in part.checkpoint.tensors.items():
            tensors[tensor.path][name] = tensor
        yield from tensors.items()


def _signature(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read_record(record: Path) -> dict[str, Any]:
    """Return the signatures of files that were found good; none where the record is damaged."""
    try:
        known = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_record(record: Path, known: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # then the files are read again
        record.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(record, flush=False) as part:
            part.write_text(json.dumps(known), "utf-8")


@dataclass
class _FileCheck:
    """The check of one file: what its samples have been so far.

    `places` are the matrices that had a sample, and the offsets in them, by its hash. `medians` and `shares`
    are of each sample: its median size, and the share of numbers far below its mean.
    """

    path: Path
    stop: threading.Event = field(default_factory=threading.Event)
    places: dict[int, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    medians: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def run(self, tensors: dict[str, StoredTensor]) -> None:
        """Raise InputError if a sample of the file's matrices is none of weights, and StopRequested."""
        matrices = {name: tensor for name, tensor in tensors.items() if _is_matrix(tensor)}
        step, size = PAGE_BYTES, self.path.stat().st_size
        while step < MAX_STEP and step * MIN_SAMPLES < size:
            step *= 2
        with self.path.open("rb", buffering=0) as file:
            for name, tensor in sorted(matrices.items(), key=lambda item: item[1].offset):
                self._check_matrix(file, name, tensor, step)
        if len(self.medians) >= REPEATS and (np.median(self.medians) < TINY or np.median(self.shares) < 0.01):
            raise InputError("weights_damaged", path=str(self.path), tensor=next(iter(matrices)))

    def _check_matrix(self, file: FileIO, name: str, tensor: StoredTensor, step: int) -> None:
        tail = TABLE_TAIL if any(word in name for word in TABLES) else 0
        tail_begin = tensor.offset + tensor.num_bytes * (1 - tail)
        num_blank, offsets = 0, list(_sample_offsets(tensor, step))
        for offset in offsets:
            page = self._read(file, offset, PAGE_BYTES)
            if is_constant := _is_constant(page, tensor):
                is_blank = self._is_blank_behind(file, tensor, offset, step)
            else:
                is_blank = self._is_repeated(page, name, offset - tensor.offset)
            num_blank += is_blank
            if (is_blank and offset < tail_begin) or num_blank * 2 > len(offsets):
                raise InputError("weights_blank", path=str(self.path), tensor=name)
            if not is_constant and not self._looks_trained(page, tensor.dtype):
                raise InputError("weights_damaged", path=str(self.path), tensor=name)

    def _is_repeated(self, page: bytes, name: str, offset: int) -> bool:
        """Return whether a sample was seen before; tied weights are equal at one place of two matrices."""
        places = self.places[hash(page)]
        is_tied = all(other != name and at == offset for other, at in places)
        places.append((name, offset))
        return not is_tied or len(places) >= REPEATS

    def _is_blank_behind(self, file: FileIO, tensor: StoredTensor, offset: int, step: int) -> bool:
        """Return whether as much behind a constant sample is constant as no good file has."""
        length = min(step, MAX_WINDOW_BYTES, tensor.num_bytes)
        length -= length % _WIDTHS[tensor.dtype]
        begin = min(offset, tensor.offset + tensor.num_bytes - length)
        return _is_constant(self._read(file, begin, length), tensor)

    def _looks_trained(self, page: bytes, dtype: str) -> bool:
        """Note how large a sample's numbers are; return False if no training makes such ones."""
        sizes = np.abs(_to_floats(page, dtype))
        if not np.isfinite(sizes).all() or np.mean(sizes > HUGE) > 1 / 8:
            return False
        if _WIDTHS[dtype] > 1:
            self.medians.append(float(np.median(sizes)))
            self.shares.append(float(np.mean(sizes < np.sqrt(np.mean(np.square(sizes))) / 4)))
        return True

    def _read(self, file: FileIO, offset: int, length: int) -> bytes:
        if self.stop.is_set():
            raise StopRequested
        page = bytearray(length)
        read_exactly(file, self.path, offset, memoryview(page))
        return bytes(page)


def _is_matrix(tensor: StoredTensor) -> bool:
    is_wide = sum(side > 1 for side in tensor.shape) > 1
    return is_wide and tensor.dtype in _WIDTHS and tensor.num_bytes >= PAGE_BYTES


def _sample_offsets(tensor: StoredTensor, step: int) -> Iterator[int]:
    """Yield the places of a matrix's samples: every `step` bytes of its file, and its last page.

    They keep to the file's grid, so that a block of the disk that was written over others is found again.
    """
    last = tensor.offset + tensor.num_bytes - PAGE_BYTES
    shift = tensor.offset % _WIDTHS[tensor.dtype]
    yield from range(-(-(tensor.offset - shift) // step) * step + shift, last, step)
    yield last


def _is_constant(content: bytes, tensor: StoredTensor) -> bool:
    """Return whether a sample is one number again and again."""
    width = _WIDTHS[tensor.dtype]
    return content[width:] == content[:-width]


def _to_floats(page: bytes, dtype: str) -> np.ndarray:
    """Return the numbers of a sample as float64; of 8-bit formats only whether they are finite."""
    match dtype:
        case "BF16":
            bits = np.frombuffer(page, "<u2").astype(np.uint32) << 16
            return bits.view(np.float32)
        case "I8":
            return np.zeros(1)
        case "F8_E4M3" | "F8_E5M2":
            bits = np.frombuffer(page, np.uint8) & 0x7F
            return np.where(bits > (0x7E if dtype == "F8_E4M3" else 0x7B), np.nan, 0.0)
        case _:
            with np.errstate(invalid="ignore"):  # of NaN
                return np.frombuffer(page, f"<f{_WIDTHS[dtype]}").astype(np.float64)

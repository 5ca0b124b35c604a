"""The files of 8-bit weights: which tensors go into which, and how one is written and verified.

Knows no folder: `conversion.py` decides which files are to be written.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MachineError
from ..files.atomic import atomic_write
from ..files.checksummed import sha256_of
from ..weights.checkpoint import Checkpoint, StoredTensor
from .linear import quantize

SHARD_BYTES = 2**30
"""Bytes of a file, and the work that an interruption costs at most."""
CHUNK_BYTES = 2**25
"""Bytes of float32 weights quantized at a time."""
ALIGNMENT = 8
"""The length of a safetensors header is a multiple of this."""
_BLOCK_WEIGHT = re.compile(r"(single_)?transformer_blocks\.\d+\.(?!norm).+\.weight")
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Shard:
    """A file to write: its name, and its tensors as they are in the source."""

    name: str
    tensors: tuple[tuple[str, StoredTensor], ...]

    @property
    def content_bytes(self) -> int:
        """The bytes of the tensors alone."""
        return sum(_bytes_of(name, stored) for name, stored in self.tensors)

    @property
    def num_bytes(self) -> int:
        """The bytes of the whole file."""
        return len(_header(self)) + self.content_bytes


def gets_eight_bits(name: str, stored: StoredTensor) -> bool:
    """Return whether this is a block's linear weight, but for its modulation; all else stays unchanged."""
    return len(stored.shape) == 2 and stored.dtype in _FLOATS and bool(_BLOCK_WEIGHT.fullmatch(name))


def plan_shards(checkpoint: Checkpoint) -> list[Shard]:
    """Return the files that a checkpoint becomes, in the order in which the source is read fastest."""
    groups: list[list[tuple[str, StoredTensor]]] = [[]]
    size = 0
    for name, stored in sorted(checkpoint.tensors.items(), key=lambda item: (item[1].path, item[1].offset)):
        num_bytes = _bytes_of(name, stored)
        if groups[-1] and size + num_bytes > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append((name, stored))
        size += num_bytes
    count = len(groups)
    return [
        Shard(f"diffusion_pytorch_model-{number:05d}-of-{count:05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def weight_map(shards: list[Shard]) -> dict[str, str]:
    """Return the file of each tensor, for the index."""
    return {
        e: shard.name for shard in shards for name, stored in shard.tensors for e in _entries(name, stored)
    }


def write_shard(
    checkpoint: Checkpoint, shard: Shard, path: Path, device: torch.device
) -> Generator[int, None, str]:
    """Write one file, yielding each tensor's bytes when it is written, and return the file's SHA-256.

    Weights are quantized on `device`. On failure, and where it is closed, there is no file of its name.

    Raises:
        InputError: the source changed, or holds numbers that are not finite.
        MachineError: the source cannot be read, or the file does not read back as written.
        OSError: the file cannot be written.
    """
    digest = hashlib.sha256()
    staging = torch.empty(max(stored.num_bytes for _, stored in shard.tensors), dtype=torch.uint8)
    with atomic_write(path) as part, part.open("wb") as file:

        def write(piece: bytes | memoryview) -> None:
            digest.update(piece)
            file.write(piece)

        write(_header(shard))
        for name, stored in shard.tensors:
            tensor = checkpoint.read(name, staging)
            if gets_eight_bits(name, stored):
                for piece in _quantized(tensor, name, stored, device):
                    write(piece)
            else:
                write(staging[: stored.num_bytes].numpy().data)
            yield _bytes_of(name, stored)
    if file_digest(path) != digest.hexdigest():
        path.unlink()
        raise MachineError("eight_bit_written_wrong", path=str(path))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a whole file."""
    with path.open("rb") as file:
        return sha256_of(file, path.stat().st_size).hex()


def _quantized(
    weight: torch.Tensor, name: str, stored: StoredTensor, device: torch.device
) -> Iterator[memoryview]:
    """Yield a weight's 8-bit numbers, some rows at a time, then the scales of all rows."""
    scales = []
    for rows in weight.split(max(CHUNK_BYTES // (4 * weight.shape[1]), 1)):
        numbers, scale = (each.cpu() for each in quantize(rows.to(device).float()))
        if not bool(scale.isfinite().all()):
            raise InputError("weights_not_finite", path=str(stored.path), tensor=name)
        scales.append(scale)
        yield numbers.flatten().view(torch.uint8).numpy().data
    yield torch.cat(scales).view(torch.uint8).numpy().data


def _entries(name: str, stored: StoredTensor) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Return dtype, shape and bytes of what a tensor becomes: itself, or a weight and its scale."""
    if not gets_eight_bits(name, stored):
        return {name: (stored.dtype, stored.shape, stored.num_bytes)}
    weight = ("I8", stored.shape, math.prod(stored.shape))
    return {
        name: weight,
        name.removesuffix("weight") + "scale": ("F32", stored.shape[:1], 4 * stored.shape[0]),
    }


def _header(shard: Shard) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for source, stored in shard.tensors:
        for name, (dtype, shape, num_bytes) in _entries(source, stored).items():
            header[name] = {
                "dtype": dtype,
                "shape": list(shape),
                "data_offsets": [offset, offset + num_bytes],
            }
            offset += num_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _bytes_of(name: str, stored: StoredTensor) -> int:
    """Return the bytes of a tensor in its new file, its scale included."""
    return sum(num_bytes for _, _, num_bytes in _entries(name, stored).values())

"""The files of 8-bit weights: which tensors go into which, and how one is written and verified.

Knows no folder: `conversion.py` decides which files are to be written.
"""

import math
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import InputError, MachineError
from ..files.atomic import atomic_write, delete_file
from ..files.checksummed import sha256_of
from ..weights.checkpoint import Checkpoint, StoredTensor
from .linear import quantize

SHARD_BYTES = 2**29
"""Bytes of a file, which are in memory at a time, and the work that an interruption costs at most."""
CHUNK_BYTES = 2**25
"""Bytes of float32 weights quantized at a time."""
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
    files = {}
    for shard in shards:
        for name, stored in shard.tensors:
            files[name] = shard.name
            if gets_eight_bits(name, stored):
                files[_scale_name(name)] = shard.name
    return files


def write_shard(
    checkpoint: Checkpoint, shard: Shard, path: Path, device: torch.device
) -> Generator[int, None, str]:
    """Write one file, yielding each tensor's bytes when it is ready, and return the file's SHA-256.

    Weights are quantized on `device`. On failure, and where it is closed, there is no file of its name.

    Raises:
        InputError: the source changed, or holds numbers that are not finite.
        MachineError: the source cannot be read, or the file does not read back as written.
        OSError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, stored in shard.tensors:
        tensors[name] = checkpoint.read(name, torch.empty(stored.num_bytes, dtype=torch.uint8))
        if gets_eight_bits(name, stored):
            tensors[name], scale = _quantize_rows(tensors[name], device)
            tensors[_scale_name(name)] = scale
            if not bool(scale.isfinite().all()):
                raise InputError("weights_not_finite", path=str(stored.path), tensor=name)
        yield _bytes_of(name, stored)
    with atomic_write(path) as part:
        save_file(tensors, part)
    with safe_open(path, "pt") as written:
        is_right = all(torch.equal(_bytes(written.get_tensor(n)), _bytes(t)) for n, t in tensors.items())
    if not is_right:
        delete_file(path)
        raise MachineError("eight_bit_written_wrong", path=str(path))
    return file_digest(path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a whole file."""
    with path.open("rb") as file:
        return sha256_of(file, path.stat().st_size).hex()


def _quantize_rows(weight: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight's 8-bit numbers and its rows' scales, made some rows at a time."""
    rows = weight.split(max(CHUNK_BYTES // (4 * weight.shape[1]), 1))
    numbers, scales = zip(*(quantize(part.to(device).float()) for part in rows), strict=True)
    return torch.cat(numbers).cpu(), torch.cat(scales).cpu()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten().view(torch.uint8)


def _scale_name(name: str) -> str:
    return name.removesuffix("weight") + "scale"


def _bytes_of(name: str, stored: StoredTensor) -> int:
    """Return the bytes of a tensor in its new file, its scale included."""
    if gets_eight_bits(name, stored):
        return math.prod(stored.shape) + 4 * stored.shape[0]
    return stored.num_bytes

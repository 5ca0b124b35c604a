"""The files of 8-bit weights: how one is written and verified.

Knows no folder: `conversion.py` decides which files are to be written.
"""

from collections.abc import Generator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import InputError, MachineError
from ..files.atomic import atomic_write, delete_file
from ..files.checksummed import sha256_of
from ..weights.checkpoint import Checkpoint
from .linear import quantize
from .shard_plan import Shard, bytes_of, gets_eight_bits, scale_name

CHUNK_BYTES = 2**25
"""Bytes of float32 weights quantized at a time."""


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
            tensors[scale_name(name)] = scale
            if not bool(scale.isfinite().all()):
                raise InputError("weights_not_finite", path=str(stored.path), tensor=name)
        yield bytes_of(name, stored)
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

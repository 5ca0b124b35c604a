"""The files that 8-bit weights become: which tensors go into which. Knows no torch and no folder."""

import math
import re
from dataclasses import dataclass

from ..weights.checkpoint import Checkpoint, StoredTensor

SHARD_BYTES = 2**29
"""Bytes of a file, which are in memory at a time, and the work that an interruption costs at most."""
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
        return sum(bytes_of(name, stored) for name, stored in self.tensors)


def gets_eight_bits(name: str, stored: StoredTensor) -> bool:
    """Return whether this is a block's linear weight, but for its modulation; all else stays unchanged."""
    return len(stored.shape) == 2 and stored.dtype in _FLOATS and bool(_BLOCK_WEIGHT.fullmatch(name))


def plan_shards(checkpoint: Checkpoint) -> list[Shard]:
    """Return the files that a checkpoint becomes, in the order in which the source is read fastest."""
    groups: list[list[tuple[str, StoredTensor]]] = [[]]
    size = 0
    for name, stored in sorted(checkpoint.tensors.items(), key=lambda item: (item[1].path, item[1].offset)):
        num_bytes = bytes_of(name, stored)
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
                files[scale_name(name)] = shard.name
    return files


def scale_name(name: str) -> str:
    return name.removesuffix("weight") + "scale"


def bytes_of(name: str, stored: StoredTensor) -> int:
    """Return the bytes of a tensor in its new file, its scale included."""
    if gets_eight_bits(name, stored):
        return math.prod(stored.shape) + 4 * stored.shape[0]
    return stored.num_bytes

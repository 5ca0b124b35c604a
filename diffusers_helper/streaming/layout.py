"""The layout of a layer: its tensors in the files and in one flat buffer. Reads no file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from ..weights.checkpoint import Checkpoint, StoredTensor

ALIGNMENT = 256


@dataclass(frozen=True)
class TensorLayout:
    """The position of one tensor inside the flat buffer of a layer, and the stored one that fills it."""

    name: str
    stored: StoredTensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Piece:
    """Bytes of a stored tensor (`source_offset` from the file's beginning) and their target in the buffer.

    They are converted on the way where `dtype` is not the stored one.
    """

    stored: StoredTensor
    source_offset: int
    source_bytes: int
    target_offset: int
    target_bytes: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Chunk:
    """The pieces that fill one stretch of the flat buffer, copied there at once."""

    pieces: Sequence[Piece]

    @property
    def offset(self) -> int:
        return self.pieces[0].target_offset

    @property
    def num_bytes(self) -> int:
        return self.pieces[-1].target_offset + self.pieces[-1].target_bytes - self.offset


@dataclass(frozen=True)
class Layer:
    """A layer of a model: its flat buffer's layout."""

    kind: str
    tensors: tuple[TensorLayout, ...]

    @property
    def num_bytes(self) -> int:
        last = self.tensors[-1]
        return _aligned(last.offset + last.num_bytes)

    def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the layer's tensors as views of a flat uint8 buffer."""
        return {
            tensor.name: buffer[tensor.offset : tensor.offset + tensor.num_bytes]
            .view(tensor.dtype)
            .reshape(tensor.shape)
            for tensor in self.tensors
        }

    def chunks(self, max_bytes: int) -> list[Chunk]:
        """Cut the layer into chunks of at most `max_bytes`, in the order of the buffer."""
        first, *others = self._pieces(max_bytes)
        chunks = [[first]]
        for piece in others:
            if piece.target_offset + piece.target_bytes - chunks[-1][0].target_offset > max_bytes:
                chunks.append([])
            chunks[-1].append(piece)
        return [Chunk(pieces) for pieces in chunks]

    def _pieces(self, max_bytes: int) -> Iterable[Piece]:
        for tensor in self.tensors:
            stored, itemsize = tensor.stored, tensor.dtype.itemsize
            source_size = stored.num_bytes * itemsize // max(tensor.num_bytes, 1)
            count = tensor.num_bytes // itemsize
            step = max_bytes // max(itemsize, source_size)
            for first in range(0, count, step):
                number = min(step, count - first)
                yield Piece(
                    stored=stored,
                    source_offset=stored.offset + first * source_size,
                    source_bytes=number * source_size,
                    target_offset=tensor.offset + first * itemsize,
                    target_bytes=number * itemsize,
                    dtype=tensor.dtype,
                )


def describe_layer(
    kind: str,
    module: nn.Module,
    names: Mapping[str, str],
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    fixed_dtypes: Mapping[str, torch.dtype] = MappingProxyType({}),
) -> Layer:
    """Lay out the tensors of an empty layer.

    Args:
        names: the stored name of each of the module's tensors that is to be streamed.
        dtype: the dtype that tensors are converted to, but for those in `fixed_dtypes`.
    """
    tensors, offset = [], 0
    for name, tensor in module.state_dict().items():
        if name in names:
            stored, shape = checkpoint.tensors[names[name]], tuple(tensor.shape)
            tensors.append(TensorLayout(name, stored, shape, fixed_dtypes.get(name, dtype), offset))
            offset = _aligned(offset + tensors[-1].num_bytes)
    return Layer(kind, tuple(tensors))


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT

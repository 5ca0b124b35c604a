"""An embedding table that stays in its file: the few rows that a text needs are read when it needs them."""

from contextlib import closing

import torch
from torch import nn

from ..weights.checkpoint import Checkpoint
from .layout import Chunk, Piece
from .reader import ChunkReader


class RowLookup(nn.Module):
    """Takes the place of an `nn.Embedding` whose weights are stored as `name`."""

    def __init__(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._stored = checkpoint.tensors[name]
        self._dtype = dtype

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows `(..., dim)` of the ids `(...)`, on their device."""
        rows, width = self._stored.shape
        wanted, back = torch.unique(ids.cpu(), return_inverse=True)
        if len(wanted) and int(wanted[-1]) >= rows:
            raise IndexError(f"row {int(wanted[-1])} of {rows}")
        table = torch.empty(len(wanted), width, dtype=self._dtype)
        source, target = self._stored.num_bytes // rows, width * self._dtype.itemsize
        with closing(ChunkReader(self._checkpoint.signatures)) as reader:
            for number, row in enumerate(wanted.tolist()):
                offset = self._stored.offset + row * source
                piece = Piece(self._stored, offset, source, 0, target, self._dtype)
                reader.read(Chunk([piece]), table[number].view(torch.uint8))
        return table[back].to(ids.device)

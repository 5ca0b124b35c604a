"""The reader of layers' chunks: plain positioned reads into buffers, the same on every system."""

import time
from io import FileIO
from pathlib import Path

import torch

from ..weights.checkpoint import TORCH_NAMES, FileSignature, check_unchanged, read_exactly, readable
from .layout import Chunk, Layer, Piece

CHUNK_BYTES = 16 * 2**20
"""Bytes that are read at a time, and sent to a GPU at once."""


class ChunkReader:
    """Reads chunks for one thread and counts bytes and seconds. Must be closed."""

    def __init__(self, signatures: dict[Path, FileSignature]) -> None:
        self.bytes_read = 0
        self.seconds = 0.0
        self._signatures = signatures
        self._files: dict[Path, FileIO] = {}
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def read(self, chunk: Chunk, buffer: torch.Tensor) -> None:
        """Fill `buffer` (uint8, `num_bytes` long) with a chunk.

        Raises InputError where a file has changed, MachineError where it cannot be read.
        """
        begin = time.perf_counter()
        for piece in chunk.pieces:
            offset = piece.target_offset - chunk.offset
            self._read_piece(piece, buffer[offset : offset + piece.target_bytes])
        self.seconds += time.perf_counter() - begin

    def read_layer(self, layer: Layer, device: torch.device) -> torch.Tensor:
        """Read a layer into a flat buffer `(num_bytes,)` uint8 on a device, in chunks."""
        buffer = torch.empty(layer.num_bytes, dtype=torch.uint8, device=device)
        staging = torch.empty(CHUNK_BYTES, dtype=torch.uint8)
        for chunk in layer.chunks(CHUNK_BYTES):
            self.read(chunk, staging[: chunk.num_bytes])
            buffer[chunk.offset : chunk.offset + chunk.num_bytes].copy_(staging[: chunk.num_bytes])
        return buffer

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _read_piece(self, piece: Piece, target: torch.Tensor) -> None:
        """Fill `target` from the file, if it still is the one whose header was read."""
        source, stored_dtype = target, getattr(torch, TORCH_NAMES[piece.stored.dtype])
        if stored_dtype != piece.dtype:
            if len(self._scratch) < piece.source_bytes:
                self._scratch = torch.empty(piece.source_bytes, dtype=torch.uint8)
            source = self._scratch[: piece.source_bytes]
        path = piece.stored.path
        with readable(path):
            if path not in self._files:
                self._files[path] = path.open("rb", buffering=0)
            check_unchanged(self._files[path], path, self._signatures[path])
            read_exactly(self._files[path], path, piece.source_offset, source.numpy().data)
        self.bytes_read += piece.source_bytes
        if source is not target:
            target.view(piece.dtype).copy_(source.view(stored_dtype))

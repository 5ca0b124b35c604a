"""The cache of embeddings on the disk, so that the same prompt or picture is encoded only once.

The key is a digest of the content and of the models; neither prompts nor pictures can be read from it. The
folder is bounded: the least recently used entries go first. A folder that cannot be written only costs time.
"""

import hashlib
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..files.atomic import atomic_write
from ..weights.model_files import ModelPart, content_fingerprint

logger = logging.getLogger(__name__)

VERSION = 2
"""The version of the entries, which another meaning of embeddings raises."""
MAX_BYTES = 256 * 2**20
"""Bytes of all entries at most."""


class EmbeddingCache:
    """A folder of safetensors files, one an entry, named by their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """Read the tensors under `key`; None where there are none, or the entry is damaged."""
        path = self._path(key)
        try:
            tensors = load(path.read_bytes())
            os.utime(path)
            return tensors
        except (OSError, SafetensorError, ValueError):
            return None

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Write tensors under `key` atomically, then evict the least recently used entries over the limit."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(key), flush=False) as part:
                part.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            self._evict()
        except OSError as error:
            logger.warning("embeddings are not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _evict(self) -> None:
        entries = list(self.folder.glob("*.safetensors*"))  # with the parts that killed runs left
        entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
        excess = sum(entry.stat().st_size for entry in entries) - MAX_BYTES
        for entry in entries:
            if excess <= 0:
                break
            excess -= entry.stat().st_size
            entry.unlink(missing_ok=True)


def embedding_keys(contents: list[bytes], parts: list[ModelPart], dtype: torch.dtype) -> list[str]:
    """The keys of the embeddings of `contents` by the models `parts`, computed in `dtype`."""
    models = b"".join(
        hashlib.sha256(b"".join(content_fingerprint(part, with_times=True))).digest() for part in parts
    )
    return [
        hashlib.sha256(f"{VERSION} {dtype} {len(content)} ".encode() + content + models).hexdigest()
        for content in contents
    ]

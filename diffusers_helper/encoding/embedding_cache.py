"""Embeddings kept on the disk, so that the same words or picture are encoded once, ever.

An entry is found by what was encoded and by what encoded it; prompts and pictures are not readable from
it. The folder is bounded: the entries that went unused longest go first. A folder that cannot be written
only costs time.
"""

import hashlib
import logging
import os
import time
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..files.atomic import atomic_write
from ..weights.model_files import ModelPart, samples

logger = logging.getLogger(__name__)

VERSION = 1
"""To be counted up when embeddings come to mean something else."""
MAX_BYTES = 256 * 2**20
HALF_SECONDS = 3600
"""Nobody still writes an entry that was begun so long ago."""


class EmbeddingCache:
    """A folder of safetensors files named by their key."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """The tensors kept under `key`, or None. A damaged entry counts as none."""
        path = self._path(key)
        try:
            tensors = load(path.read_bytes())
            os.utime(path)
        except (OSError, SafetensorError, ValueError):
            return None
        return tensors

    def put(self, key: str, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors under `key`, atomically; then forget the oldest entries over the limit."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(key), flush=False) as part:
                part.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            self._forget_oldest()
        except OSError as error:
            logger.warning("embeddings are not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _forget_oldest(self) -> None:
        for half in self.folder.glob("*.part"):  # of a run that was killed
            if half.stat().st_mtime < time.time() - HALF_SECONDS:
                half.unlink(missing_ok=True)
        entries = sorted(
            ((entry.stat(), entry) for entry in self.folder.glob("*.safetensors")),
            key=lambda pair: pair[0].st_mtime_ns,
        )
        excess = sum(stat.st_size for stat, _ in entries) - self.max_bytes
        for stat, entry in entries:
            if excess <= 0:
                break
            entry.unlink(missing_ok=True)
            excess -= stat.st_size


def embedding_key(content: bytes, parts: list[ModelPart], dtype: torch.dtype) -> str:
    """The name under which the embedding of `content` by the models `parts` is kept."""
    return embedding_keys([content], parts, dtype)[0]


def embedding_keys(contents: list[bytes], parts: list[ModelPart], dtype: torch.dtype) -> list[str]:
    """`embedding_key` of several contents; the models' files are looked at once."""
    models = b"".join(_fingerprint(part) for part in parts)
    return [
        hashlib.sha256(f"{VERSION} {dtype} {len(content)} ".encode() + content + models).hexdigest()
        for content in contents
    ]


def _fingerprint(part: ModelPart) -> bytes:
    """What tells a model's files from another's without reading all: names, sizes, times, samples."""
    digest = hashlib.sha256()
    for path in part.files:
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns} ".encode())
        for sample in samples(path):
            digest.update(sample)
    return digest.digest()

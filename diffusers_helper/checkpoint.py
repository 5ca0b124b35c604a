"""Weights as they lie on the disk: which file holds a tensor, at which byte, and reading just that.

Plain reads into a buffer, never a memory map: a mapping counts as memory where memory is short, while the
operating system's file cache helps plain reads exactly as far as it can spare room.
Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON header, data).
"""

import json
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100_000_000
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8,
         "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}  # fmt: skip
_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
                "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
                "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `num_bytes` from byte `offset` of `path` on."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of one model folder, by name."""

    folder: Path
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read the headers of a folder's safetensors files, one or many with an index.

        Raises:
            InputError: a file is missing, cut short or something else.
        """
        tensors: dict[str, StoredTensor] = {}
        for path in weight_files(folder):
            tensors |= read_header(path)
        return cls(folder, tensors)

    @cached_property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    def read(self, name: str) -> "torch.Tensor":
        """Read one tensor into new memory on the CPU, in the dtype it is stored in."""
        import torch

        stored = self.tensors[name]
        buffer = torch.empty(stored.num_bytes, dtype=torch.uint8)
        read_into(stored, buffer.numpy().data)
        return buffer.view(getattr(torch, _TORCH_NAMES[stored.dtype])).reshape(stored.shape)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a model folder, in order; each exists."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        try:
            names = sorted(set(json.loads(indices[0].read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError("model_file_broken", path=str(indices[0])) from error
        files = [folder / name for name in names]
    else:
        names = ["model.safetensors", "diffusion_pytorch_model.safetensors"]
        files = [folder / name for name in names if (folder / name).is_file()][:1]
        if not files:
            raise InputError("model_file_missing", path=str(folder / "*.safetensors"))
    for path in files:
        if not path.is_file():
            raise InputError("model_file_missing", path=str(path))
    return files


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read where each tensor of a safetensors file lies, and check that the file is as long as it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(size, MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        begin = 8 + length
        tensors = {name: _stored_tensor(path, begin, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError("model_file_broken", path=str(path)) from error
    expected = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=begin)
    if size != expected:
        raise InputError("model_file_cut_short", path=str(path), size=size, expected=expected)
    return tensors


def read_into(stored: StoredTensor, target: memoryview) -> None:
    """Read a tensor's bytes into `target` (`num_bytes` long). Raises InputError where they are gone."""
    done = 0
    try:
        with stored.path.open("rb", buffering=0) as file:
            file.seek(stored.offset)
            while done < stored.num_bytes:
                count = file.readinto(target[done:])  # at most 2 GiB come at once
                if not count:
                    raise InputError("model_file_changed", path=str(stored.path))
                done += count
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("model_file_unreadable", path=str(stored.path), reason=reason) from error


def _stored_tensor(path: Path, begin: int, entry: dict) -> StoredTensor:
    first, last = entry["data_offsets"]
    shape = tuple(int(side) for side in entry["shape"])
    num_bytes = math.prod(shape) * _BITS[entry["dtype"]] // 8
    if last - first != num_bytes or first < 0:
        raise ValueError(f"a tensor of {num_bytes} bytes stored in {last - first}")
    return StoredTensor(path, entry["dtype"], shape, begin + first, num_bytes)

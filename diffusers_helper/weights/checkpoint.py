"""The tensors in a model's files: where each is stored, and how it is read.

Plain reads into a buffer, never a memory map: mapped pages count as memory where memory is short, while the
operating system's file cache helps plain reads as far as it can spare room.
Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON header, data).
"""

import contextlib
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MachineError
from ..files.disk_errors import NOTHING_OPENS

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100_000_000
"""Bytes of a header at most, as in the safetensors library."""
SINGLE_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
                "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
                "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # fmt: skip
_BYTES = {name: 1 if name == "BOOL" else int(re.findall(r"\d+", name)[0]) // 8 for name in TORCH_NAMES}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: `num_bytes` from byte `offset` of `path` on; `dtype` as safetensors names it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class FileSignature:
    """The size and time by which a changed file is noticed."""

    num_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "FileSignature":
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder by name, and the signatures of its files when their headers were read."""

    folder: Path
    tensors: dict[str, StoredTensor]
    signatures: dict[Path, FileSignature]

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Read the headers of a folder's safetensors files, one or many with an index.

        Raises:
            InputError: a file is missing, cut short or no safetensors file, or belongs to another download.
        """
        tensors: dict[str, StoredTensor] = {}
        signatures = {}
        files, index = _find_files(folder)
        for path in files:
            signatures[path] = FileSignature.of(path.stat())
            header = read_header(path)
            for name in tensors.keys() & header.keys():
                raise _mixed(
                    folder, name, f"{path.name}, {tensors[name].path.name}", index.get(name, path.name)
                )
            tensors |= header
        for name, tensor in tensors.items():
            if (expected := Path(index.get(name, tensor.path.name)).name) != tensor.path.name:
                raise _mixed(folder, name, tensor.path.name, expected)
        return cls(folder, tensors, signatures)

    @classmethod
    def open_file(cls, path: Path, folder: Path) -> "Checkpoint":
        """Read the header of one file outside the model's folder. Raises InputError like `read_header`."""
        tensors = read_header(path)
        return cls(folder, tensors, {path: FileSignature.of(path.stat())})

    def read(self, name: str, staging: "torch.Tensor") -> "torch.Tensor":
        """Read one tensor in its stored dtype, as a view of `staging` (CPU, uint8, long enough).

        Use one staging buffer for many tensors: a new one for each fragments the memory.

        Raises:
            InputError: the file has changed since its header was read.
            MachineError: it cannot be read.
        """
        import torch

        stored = self.tensors[name]
        buffer = staging[: stored.num_bytes]
        with readable(stored.path), stored.path.open("rb", buffering=0) as file:
            check_unchanged(file, stored.path, self.signatures[stored.path])
            read_exactly(file, stored.path, stored.offset, buffer.numpy().data)
        return buffer.view(getattr(torch, TORCH_NAMES[stored.dtype])).reshape(stored.shape)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Convert an OSError in the block, which reads a file's tensors, to a MachineError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError("model_file_unreadable", path=str(path), reason=reason) from error


def unreadable(path: Path, error: OSError) -> InputError | MachineError:
    """Return the error for a file, or a folder, that cannot be checked: the machine's if it can open none."""
    kind = MachineError if error.errno in NOTHING_OPENS else InputError
    return kind(
        "model_file_unreadable", path=str(error.filename or path), reason=error.strerror or str(error)
    )


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model folder in order. Raises InputError where one is missing."""
    return _find_files(folder)[0]


def _find_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return a folder's safetensors files in order, and the file of each tensor where an index names them."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    index = _read_index(indices[0]) if indices else {}
    names = sorted(set(index.values()))
    files = [folder / Path(name).name for name in names] if indices else [_single_file(folder)]
    for path in files:
        if not path.is_file():
            raise InputError("model_file_missing", path=str(path))
    return files, index


def _read_index(index: Path) -> dict[str, str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError("model_file_broken", path=str(index))
    return names


def _mixed(folder: Path, tensor: str, found: str, expected: str) -> InputError:
    return InputError("weights_mixed", path=str(folder), tensor=tensor, found=found, expected=expected)


def _single_file(folder: Path) -> Path:
    found = [folder / name for name in SINGLE_FILES if (folder / name).is_file()]
    if found:
        return found[0]
    shards = (_SHARD.fullmatch(path.name) for path in sorted(folder.glob("*.safetensors")))
    index = next((f"{shard[1]}.safetensors.index.json" for shard in shards if shard), "*.safetensors")
    raise InputError("model_file_missing", path=str(folder / index))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError where the file is missing, or holds none."""
    if not path.is_file():
        raise InputError("model_file_missing", path=str(path))
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError("model_file_broken", path=str(path)) from error
    if not isinstance(values, dict):
        raise InputError("model_file_broken", path=str(path))
    return values


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file, and check that the file is as long as its tensors need.

    Raises:
        InputError: the file is cut short, or is no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            if size < 8 + length:
                raise InputError("model_file_cut_short", path=str(path), size=size, expected=8 + length)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        begin = 8 + length
        tensors = {name: _stored_tensor(path, begin, entry) for name, entry in header.items()}
        _check_order(tensors.values(), begin)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise InputError("model_file_broken", path=str(path)) from error
    expected = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=begin)
    if size != expected:
        raise InputError("model_file_cut_short", path=str(path), size=size, expected=expected)
    return tensors


def check_unchanged(file: FileIO, path: Path, signature: FileSignature) -> None:
    """Raise InputError if an open file has changed since its header was read."""
    if FileSignature.of(os.fstat(file.fileno())) != signature:
        raise InputError("model_file_changed", path=str(path))


def read_exactly(file: FileIO, path: Path, offset: int, target: memoryview) -> None:
    """Fill `target` from byte `offset` of an open file on. Raises InputError where the file is too short."""
    done = 0
    file.seek(offset)
    while done < len(target):
        count = file.readinto(target[done:])  # at most 2 GiB come at once
        if not count:
            raise InputError("model_file_changed", path=str(path))
        done += count


def _check_order(tensors: Iterable[StoredTensor], begin: int) -> None:
    """Raise ValueError unless tensors lie one behind the other, as the format wants: none shares bytes."""
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.num_bytes)):
        if tensor.offset != begin:
            raise ValueError(f"a tensor at byte {tensor.offset} instead of {begin}")
        begin += tensor.num_bytes


def _stored_tensor(path: Path, begin: int, entry: dict) -> StoredTensor:
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(isinstance(number, int) and number >= 0 for number in (first, last, *shape)):
        raise ValueError(f"a tensor {shape} from byte {first} to {last}")
    num_bytes = math.prod(shape) * _BYTES[entry["dtype"]]
    if last - first != num_bytes:
        raise ValueError(f"a tensor of {num_bytes} bytes stored in {last - first}")
    return StoredTensor(path, entry["dtype"], shape, begin + first, num_bytes)

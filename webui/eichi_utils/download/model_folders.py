"""The files of each part of the set, and the folders on this computer in which they may lie.

The hub is not asked. A part that is complete in any folder is used where it is: the five parts need not come
from one folder. The same weights may lie in a repository in several formats (`.bin`, fp16 variants, one file
beside its shards): of each part only those are taken which `diffusers_helper.weights.model_files` finds.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from diffusers_helper.errors import EngineError, MachineError
from diffusers_helper.public import (
    PARTS,
    SINGLE_FILES,
    ModelFiles,
    ModelPart,
    PartSpec,
    check_fit,
    disk_errors,
    find_part,
    find_single_file,
    repository_folders,
)

PART_ENDING = ".part"
"""The ending of files that are being downloaded: `model.safetensors.0123456789ab.part`."""
CONFIG = "config.json"
INDICES = tuple(f"{name}.index.json" for name in SINGLE_FILES)
PROCESSOR_ENDINGS = (".json", ".txt")
"""The endings of the files of tokenizers and image processors."""
SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-(\d{5})\.safetensors")
RESERVE = 2**30
"""Bytes that stay free: a system whose disk is full to the last byte does not work well."""
CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
PartState = Literal["complete", "partly", "missing"]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as it was listed at a commit, so that later changes don't mix with this.

    `checksum` is hexadecimal: SHA-256 of a large file, git's SHA-1 of a small one; None if the hub gave none.
    """

    repository: str
    path: str
    size: int
    commit: str = "main"
    checksum: str | None = None

    @property
    def name(self) -> str:
        """The name in messages, and the path below a folder of models."""
        return f"{self.repository}/{self.path}"

    @property
    def part_name(self) -> str:
        """The path at which its bytes gather until it is complete: versions of it do not mix."""
        return f"{self.name}.{(self.checksum or f'{self.size:012}')[:12]}{PART_ENDING}"


@dataclass(frozen=True)
class ModelFolders:
    """The folders to search, in this order; each a Hugging Face cache or `ORG/NAME/...`, or both.

    Attributes:
        given: named by the user; None where nobody named one.
        own: the app's.
        caches: the user's own caches of Hugging Face, only ever read.
    """

    given: Path | None
    own: Path
    caches: tuple[Path, ...] = ()

    @classmethod
    def of_user(cls, given: Path | None, own: Path) -> "ModelFolders":
        """Add the folders in which Hugging Face's own library keeps downloads for the user who runs this."""
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        paths = [*map(os.environ.get, CACHE_VARIABLES), f"{base}/huggingface"]
        return cls(given, own, tuple(Path(path).expanduser() for path in paths if path))

    @property
    def target(self) -> Path:
        """The folder to which a download goes."""
        return self.given if self.given is not None else self.own

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to search, each once."""
        found: dict[str, Path] = {}
        for path in (self.target, self.own, *self.caches):
            found.setdefault(os.path.realpath(path), path)
        return tuple(found.values())

    def of_repository(self, repository: str) -> Iterator[Path]:
        """Yield all folders that may hold a repository."""
        for root in self.roots:
            with contextlib.suppress(OSError):
                yield from repository_folders(root, repository)

    def find_part(self, spec: PartSpec) -> ModelPart:
        """Find and check one model; raises InputError like `find_models`."""
        return find_part(self.target, spec, self.of_repository, self.roots)

    def find_single_file(self, spec: PartSpec) -> list[Path]:
        """Find ComfyUI's file of a model's weights, if it can be used."""
        with contextlib.suppress(EngineError, OSError):
            if found := find_single_file(spec, self.roots, self.target):
                return [*found.signatures]
        return []

    def find_copy(self, file: RemoteFile) -> Path | None:
        """Find a file of the same length at the same path of its repository in any of the folders."""
        paths = (folder / file.path for folder in self.of_repository(file.repository))
        return next((path for path in paths if file_size(path) == file.size), None)

    def check_room(self, num_bytes: int) -> None:
        """Raise MachineError where the target's disk is too small for so many bytes and a little more."""
        needed, free = num_bytes + RESERVE, free_bytes(self.target)
        if num_bytes and needed > free:
            sizes = {"needed": gigabytes(needed), "free": gigabytes(free)}
            raise MachineError("download_disk_too_small", path=str(self.target), **sizes)


@dataclass(frozen=True)
class PartView:
    """The state of one of `PARTS` on the disk. `folder` has its config and weights, where it is complete;
    `num_bytes` of an incomplete one are those in the folder that has most of it."""

    name: str
    state: PartState
    folder: Path | None
    num_bytes: int


@dataclass(frozen=True)
class Inventory:
    """The parts of the set at one moment; the state and the bytes of all of them."""

    parts: tuple[PartView, ...]
    state: PartState
    num_bytes: int


def take_inventory(folders: ModelFolders) -> Inventory:
    """Return which parts are there: complete if all files of a part are there, whole, and fit together.

    Takes milliseconds: only the headers of weights are read. A folder that cannot be read holds nothing.
    """
    parts = tuple(_view_part(name, spec, folders) for name, spec in PARTS.items())
    state = "partly" if len({part.state for part in parts}) > 1 else parts[0].state
    return Inventory(parts, state, sum(part.num_bytes for part in parts))


def find_models_in(folders: ModelFolders) -> ModelFiles:
    """Find the complete set, each part where it is whole; raises InputError like `find_models`."""
    files = ModelFiles(**{name: folders.find_part(spec) for name, spec in PARTS.items()})
    check_fit(files)
    return files


def file_size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else None
    return None


def nearest_folder(folder: Path) -> Path:
    """The folder, or until it is made, the nearest one above it; itself where there is none."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of a folder that need not exist yet; MachineError where there is no disk."""
    with disk_errors(folder, folder):
        return shutil.disk_usage(nearest_folder(folder)).free


def gigabytes(num_bytes: int) -> str:
    """Format decimal gigabytes, as disks and download pages count."""
    return f"{num_bytes / 1e9:.1f}"


def files_of(spec: PartSpec, listing: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Choose the files of one part from all of its repository; the weights come last.

    Raises MachineError where the repository has no such part any more.
    """
    by_path = {PurePosixPath(file.path): file for file in listing}
    names = {path.name for path in by_path if path.parent == PurePosixPath(spec.folder)}
    paths = [PurePosixPath(spec.folder, name) for name in (CONFIG, *_choose_weights(names))]
    if spec.processor is not None:
        found = [path.name for path in by_path if path.parent.as_posix() == spec.processor]
        found = [name for name in found if name.endswith(PROCESSOR_ENDINGS)]
        choices = (names for names in spec.processor_files if set(found).issuperset(names))
        chosen = dict.fromkeys([*next(choices, spec.processor_files[0]), *found])
        paths = [PurePosixPath(spec.processor, name) for name in chosen] + paths
    for path in paths:
        if path not in by_path:
            raise MachineError("download_repository_changed", repository=spec.repository, file=str(path))
    return [by_path[path] for path in paths]


def is_weights(file: RemoteFile) -> bool:
    """Return whether a chosen file holds weights, or is their index."""
    return file.path.endswith((".safetensors", *INDICES))


def _view_part(name: str, spec: PartSpec, folders: ModelFolders) -> PartView:
    try:
        part = folders.find_part(spec)
    except EngineError:
        found = (_bytes_below(folder, spec) for folder in folders.of_repository(spec.repository))
        num_bytes = max(found, default=0) + sum(
            file_size(path) or 0 for path in folders.find_single_file(spec)
        )
        return PartView(name, "partly" if num_bytes else "missing", None, num_bytes)
    files = {*part.files, *(part.folder / index for index in INDICES)}
    return PartView(name, "complete", part.folder, sum(file_size(path) or 0 for path in files))


def _bytes_below(repository: Path, spec: PartSpec) -> int:
    """Bytes of this part's files, complete or on their way, in one folder of its repository."""
    total = 0
    for name in {spec.folder, spec.processor or spec.folder}:
        with contextlib.suppress(OSError):
            for path in (repository / name).iterdir():
                is_partial = path.suffix == PART_ENDING  # which follows a checksum
                entry = path.with_suffix("").stem if is_partial else path.name
                total += (file_size(path) or 0) if may_be_part_of(spec, PurePosixPath(name, entry)) else 0
    return total


def may_be_part_of(spec: PartSpec, path: PurePosixPath) -> bool:
    """Return whether a file with that path in the repository's folder may belong to this part."""
    if path.parent == PurePosixPath(spec.folder):
        return path.name in (CONFIG, *INDICES, *SINGLE_FILES) or SHARD.fullmatch(path.name) is not None
    return path.parent.as_posix() == spec.processor and path.name.endswith(PROCESSOR_ENDINGS)


def _choose_weights(names: set[str]) -> list[str]:
    """Choose as the finder does: an index with its shards, else a single file."""
    shards = list(filter(None, map(SHARD.fullmatch, sorted(names))))
    for index, shard in itertools.product(filter(names.__contains__, INDICES), shards):
        series = [found[0] for found in shards if found.groups() == shard.groups()]  # of one upload
        if index.startswith(shard[1]) and len(series) == int(shard[2]):
            return [index, *series]
    return [next((name for name in SINGLE_FILES if name in names), SINGLE_FILES[0])]

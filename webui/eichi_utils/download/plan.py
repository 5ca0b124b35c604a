"""The comparison of what the hub lists with what is needed and what is there, before a byte is fetched.

The same weights may lie in a repository in several formats (`.bin`, fp16 variants, one file beside its
shards). Of each part only those are taken which `diffusers_helper.weights.model_files` finds again.
"""

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from diffusers_helper.errors import MachineError
from diffusers_helper.public import PARTS, SINGLE_FILES, PartSpec, disk_errors

from .model_folders import (
    CONFIG,
    INDICES,
    PART_ENDING,
    PROCESSOR_FILES,
    SHARD,
    ModelFolders,
    file_size,
    take_inventory,
)

RESERVE = 2**30
"""Bytes that stay free: a system whose disk is full to the last byte does not work well."""


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


@dataclass(frozen=True)
class DownloadPlan:
    """The files of incomplete parts; in a check, also the app's own files of the others.

    Attributes:
        present: each file with the bytes of it that need not be fetched.
        total_bytes: of the whole set.
    """

    present: dict[RemoteFile, int]
    total_bytes: int

    @property
    def needed_bytes(self) -> int:
        """The bytes that have to be fetched."""
        return sum(file.size - num_bytes for file, num_bytes in self.present.items())


def make_plan(
    folders: ModelFolders, list_files: Callable[[str], Sequence[RemoteFile]], *, check: bool = False
) -> DownloadPlan:
    """Compare what is needed with what is there. Where all is there, nothing is listed.

    Args:
        list_files: lists a repository.
        check: also plan the app's own files of complete parts, so that their content can be compared.

    Raises:
        MachineError: a repository lacks a file; whatever `list_files` raises.
    """
    list_once = functools.cache(list_files)
    present: dict[RemoteFile, int] = {}
    settled = 0
    for part in take_inventory(folders).parts:
        spec = PARTS[part.name]
        is_own = part.folder == folders.target / spec.repository / spec.folder
        if part.state == "complete" and not (check and is_own):
            settled += part.num_bytes
        else:
            for file in files_of(spec, list_once(spec.repository)):
                left = file_size(part_path(folders.target / file.name, file)) or 0
                present[file] = min(left, file.size) or (file.size if local_copy(folders, file) else 0)
    return DownloadPlan(present, settled + sum(file.size for file in present))


def files_of(spec: PartSpec, listing: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Choose the files of one part from all of its repository; the weights come last.

    Raises:
        MachineError: the repository has no such part any more.
    """
    by_path = {PurePosixPath(file.path): file for file in listing}
    names = {path.name for path in by_path if path.parent == PurePosixPath(spec.folder)}
    paths = [PurePosixPath(spec.folder, name) for name in (CONFIG, *_choose_weights(names))]
    if spec.processor is not None:
        found = [name for name in PROCESSOR_FILES if PurePosixPath(spec.processor, name) in by_path]
        is_enough = any(set(found).issuperset(choice) for choice in spec.processor_files)
        needed = () if is_enough else spec.processor_files[0]
        paths = [PurePosixPath(spec.processor, name) for name in dict.fromkeys([*found, *needed])] + paths
    for path in paths:
        if path not in by_path:
            raise MachineError("download_repository_changed", repository=spec.repository, file=str(path))
    return [by_path[path] for path in paths]


def check_room(plan: DownloadPlan, folder: Path) -> None:
    """Raise MachineError where the disk of `folder` is too small for the plan and a little more."""
    needed, free = plan.needed_bytes + RESERVE, free_bytes(folder)
    if plan.needed_bytes and needed > free:
        raise MachineError(
            "download_disk_too_small", needed=gigabytes(needed), free=gigabytes(free), path=str(folder)
        )


def local_copy(folders: ModelFolders, file: RemoteFile) -> Path | None:
    """Find a file of the same length at the same path of its repository in any of the folders."""
    paths = (folder / file.path for folder in folders.of_repository(file.repository))
    return next((path for path in paths if file_size(path) == file.size), None)


def part_path(path: Path, file: RemoteFile) -> Path:
    """The path at which the bytes of a file gather until it is complete: versions of it do not mix."""
    return path.with_name(f"{path.name}.{(file.checksum or f'{file.size:012}')[:12]}{PART_ENDING}")


def nearest_folder(folder: Path) -> Path:
    """The folder, or until it is made, the nearest one above it; itself where there is none."""
    return next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of a folder that need not exist yet.

    Raises:
        MachineError: the disk is not there.
    """
    with disk_errors(folder, folder):
        return shutil.disk_usage(nearest_folder(folder)).free


def gigabytes(num_bytes: int) -> str:
    """Format decimal gigabytes, as disks and download pages count."""
    return f"{num_bytes / 1e9:.1f}"


def _choose_weights(names: set[str]) -> list[str]:
    """Choose as the finder does: an index with its shards, else a single file."""
    for index in INDICES:
        series: dict[str, list[str]] = {}  # one upload after another may have left its shards
        for found in filter(None, map(SHARD.fullmatch, sorted(names))):
            if found[1] == index.partition(".")[0]:
                series.setdefault(found[2], []).append(found[0])
        complete = [shards for total, shards in series.items() if len(shards) == int(total)]
        if index in names and complete:
            return [index, *complete[0]]
    return [next((name for name in SINGLE_FILES if name in names), SINGLE_FILES[0])]

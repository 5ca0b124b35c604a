"""The comparison of what the hub lists with what is there, before a byte is fetched."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.public import PARTS, disk_errors

from .model_folders import PART_ENDING, ModelFolders, file_size, local_copy, take_inventory
from .needed_files import RemoteFile, files_of

RESERVE = 2**30
"""Bytes that stay free: a system whose disk is full to the last byte does not work well."""
ListFiles = Callable[[str], Sequence[RemoteFile]]


@dataclass(frozen=True)
class PlannedFile:
    """A file of the set, complete or to be fetched to `path`, `counted_bytes` of which need not be fetched.

    `source` is a copy on this computer that can be used instead of fetching it, or None.
    """

    remote: RemoteFile
    path: Path
    counted_bytes: int
    is_complete: bool
    source: Path | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"{self.remote.repository}/{self.remote.path}"


@dataclass(frozen=True)
class DownloadPlan:
    """The files of incomplete parts (in a check, also the app's own files of the others), the bytes of the
    whole set, and those that have to be fetched."""

    files: tuple[PlannedFile, ...]
    total_bytes: int
    needed_bytes: int


def make_plan(folders: ModelFolders, list_files: ListFiles, *, check: bool = False) -> DownloadPlan:
    """Compare what is needed with what is there. Where all is there, nothing is listed.

    Args:
        list_files: lists a repository.
        check: also plan the app's own files of complete parts, so that their content can be compared.

    Raises:
        MachineError: a repository lacks a file; whatever `list_files` raises.
    """
    listings: dict[str, Sequence[RemoteFile]] = {}
    files: dict[Path, PlannedFile] = {}
    settled = 0
    for part in take_inventory(folders).parts:
        spec = PARTS[part.name]
        is_own = part.folder == folders.target / spec.repository / spec.folder
        if part.state == "complete" and not (check and is_own):
            settled += part.num_bytes
            continue
        if spec.repository not in listings:
            listings[spec.repository] = list_files(spec.repository)
        for remote in files_of(spec, listings[spec.repository]):
            file = _plan_file(folders, remote)
            files[file.path] = file
    return DownloadPlan(
        files=tuple(sorted(files.values(), key=lambda file: file.remote.size)),
        total_bytes=settled + sum(file.remote.size for file in files.values()),
        needed_bytes=sum(file.remote.size - file.counted_bytes for file in files.values()),
    )


def check_room(plan: DownloadPlan, folder: Path) -> None:
    """Raise MachineError where the disk of `folder` is too small for the plan and a little more."""
    needed, free = plan.needed_bytes + RESERVE, free_bytes(folder)
    if plan.needed_bytes and needed > free:
        raise MachineError(
            "download_disk_too_small", needed=gigabytes(needed), free=gigabytes(free), path=str(folder)
        )


def part_path(path: Path, file: RemoteFile) -> Path:
    """The path at which the bytes of a file gather until it is complete: versions of it do not mix."""
    return path.with_name(f"{path.name}.{(file.checksum or f'{file.size:012}')[:12]}{PART_ENDING}")


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of a folder that need not exist yet.

    Raises:
        MachineError: the disk is not there.
    """
    existing = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)
    with disk_errors(folder, folder):
        return shutil.disk_usage(existing).free


def gigabytes(num_bytes: int) -> str:
    """Format decimal gigabytes, as disks and download pages count."""
    return f"{num_bytes / 1e9:.1f}"


def _plan_file(folders: ModelFolders, remote: RemoteFile) -> PlannedFile:
    path = folders.target / remote.repository / remote.path
    if file_size(path) == remote.size:
        return PlannedFile(remote, path, remote.size, is_complete=True)
    part_bytes = min(file_size(part_path(path, remote)) or 0, remote.size)
    source = None if part_bytes else local_copy(folders, remote)
    return PlannedFile(remote, path, part_bytes if source is None else remote.size, False, source)

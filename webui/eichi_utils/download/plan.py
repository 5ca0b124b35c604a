"""What a download has to bring: the hub's list of files beside what is there, before a byte is fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import PARTS

from ..download_part import free_bytes, part_path
from .model_folders import Inventory, ModelFolders, PartView, local_copies, take_inventory
from .needed_files import Listing, RemoteFile, files_of

RESERVE = 2**30
"""Bytes that stay free: a system whose disk is full to the last byte does not work well."""
List = Callable[[str], Listing]


@dataclass(frozen=True)
class PlannedFile:
    """One file of the set.

    Attributes:
        commit: of its repository.
        path: where it is, or will be.
        here: bytes of it that are at that place, as a whole or by half.
        is_there: as a whole.
        source: a copy of it on this computer that can be taken instead of fetching it; None: there is none.
    """

    remote: RemoteFile
    commit: str
    path: Path
    here: int
    is_there: bool
    source: Path | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.remote.repository}/{self.remote.path}"

    @property
    def counted_bytes(self) -> int:
        """That need not come over the line."""
        return self.remote.size if self.is_there or self.source is not None else self.here

    @property
    def needed_bytes(self) -> int:
        """That have to come over the line."""
        return self.remote.size - self.counted_bytes

    @property
    def disk_bytes(self) -> int:
        """That it will take on the disk on top of those there."""
        if self.is_there or (self.source is not None and _same_disk(self.source, self.path)):
            return 0
        return self.remote.size - self.here


@dataclass(frozen=True)
class DownloadPlan:
    """What there is and what is to come, in bytes.

    Attributes:
        look: what was there when this was made.
        files: of the parts that are not complete; in a check also the app's own files of the others.
        total_bytes: of the whole set of models.
        needed_bytes: of them, those that have to come over the line.
        disk_bytes: that will be written.
        target: the folder they go to.
        free_bytes: on its disk.
    """

    look: Inventory
    files: tuple[PlannedFile, ...]
    total_bytes: int
    needed_bytes: int
    disk_bytes: int
    target: Path
    free_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to be done."""
        return self.look.state == "complete"

    @property
    def fits(self) -> bool:
        """Whether the disk has room for it, and a little more."""
        return self.disk_bytes == 0 or self.disk_bytes + RESERVE <= self.free_bytes

    def check_disk(self) -> None:
        """Raises MachineError where the disk is too small."""
        if not self.fits:
            raise MachineError(
                "download_disk_too_small",
                needed=gigabytes(self.disk_bytes + RESERVE),
                free=gigabytes(self.free_bytes),
                path=str(self.target),
            )


def make_plan(places: ModelFolders, list_files: List, *, check: bool = False) -> DownloadPlan:
    """Compare what is needed with what is there. Where all is there, the hub is not asked.

    Args:
        list_files: gives the listing of a repository.
        check: also plan the app's own files of complete parts, so that their content can be compared.

    Raises:
        MachineError: the hub or the disk says no. And whatever `list_files` raises.
    """
    seen = take_inventory(places)
    listings: dict[str, Listing] = {}
    files: dict[Path, PlannedFile] = {}
    settled = 0
    for part in seen.parts:
        if part.state == "complete" and not (check and _is_own(part, places)):
            settled += part.num_bytes
            continue
        if part.repository not in listings:
            listings[part.repository] = list_files(part.repository)
        listing = listings[part.repository]
        for remote in files_of(PARTS[part.name], listing):
            file = _plan_file(places, remote, listing.commit)
            files[file.path] = file
    return DownloadPlan(
        look=seen,
        files=tuple(sorted(files.values(), key=lambda file: file.remote.size)),
        total_bytes=settled + sum(file.remote.size for file in files.values()),
        needed_bytes=sum(file.needed_bytes for file in files.values()),
        disk_bytes=sum(file.disk_bytes for file in files.values()),
        target=places.target,
        free_bytes=free_bytes(places.target),
    )


def gigabytes(num_bytes: int) -> str:
    """For sentences: decimal gigabytes, as disks and download pages count."""
    return f"{num_bytes / 1e9:.1f}"


def _is_own(part: PartView, places: ModelFolders) -> bool:
    """Whether a complete part lies as this app downloads it, in plain folders of the target."""
    return part.folder == places.target / part.repository / PARTS[part.name].folder


def _plan_file(places: ModelFolders, remote: RemoteFile, commit: str) -> PlannedFile:
    path = places.target / remote.repository / remote.path
    if _size(path) == remote.size:
        return PlannedFile(remote, commit, path, remote.size, is_there=True)
    here = min(_size(part_path(path, remote)) or 0, remote.size)
    copies = local_copies(places, remote) if here == 0 else iter(())
    return PlannedFile(remote, commit, path, here, is_there=False, source=next(copies, None))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _same_disk(one: Path, other: Path) -> bool:
    """Whether a file can have a second name there, as far as that can be told."""
    folder = next((path for path in other.parents if path.is_dir()), None)
    try:
        return folder is not None and one.stat().st_dev == folder.stat().st_dev
    except OSError:
        return False

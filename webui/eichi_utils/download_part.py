"""A file that is on its way: its bytes so far, in a file that outlives this process, and their checksum.

`model.safetensors.0123456789ab.part` stands beside where the file will be; the name holds the beginning of
the checksum, so that what is left of another version is never gone on with. Knows no network.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusers_helper.errors import MachineError

from .download.model_folders import PART_ENDING
from .download.needed_files import RemoteFile

logger = logging.getLogger(__name__)

CHUNK = 2**22
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PAUSES = (0.05, 0.2, 0.5, 1.0)
"""Seconds before another try to rename: virus scanners hold a new file for a moment on Windows."""
Alive = Callable[[], None]
"""Called between chunks; raises where the work is to end."""


def part_path(path: Path, file: RemoteFile) -> Path:
    """Where the bytes of a file gather that will be at `path`."""
    return path.with_name(f"{path.name}.{(file.checksum or str(file.size))[:12]}{PART_ENDING}")


def is_right(path: Path, file: RemoteFile, alive: Alive) -> bool:
    """Whether a file has the content that it should have."""
    part = PartFile(path, file)
    with _disk_errors(path):
        part.read_on(alive)
    return part.is_right


class PartFile:
    """The bytes of one file so far. `have` of them are there and counted into the checksum."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self.path = path
        self.file = file
        self.have = 0
        self._digest = new_digest(file)

    @classmethod
    def open(cls, target: Path, file: RemoteFile, source: Path | None, alive: Alive) -> "PartFile":
        """Go on with what is there; with nothing there, take a copy on this computer if there is one.

        Raises:
            MachineError: the folder cannot be written, or the disk is full.
        """
        part = cls(part_path(target, file), file)
        with _disk_errors(part.path):
            part.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_others(target, part.path)
            if source is not None and not part.path.exists():
                _take_copy(source, part.path, file.size, alive)
            if part.path.exists():
                part.read_on(alive)
        return part

    @property
    def is_whole(self) -> bool:
        return self.have >= self.file.size

    @property
    def is_right(self) -> bool:
        """Whether size and checksum are the file's."""
        checksum = self.file.checksum
        return self.have == self.file.size and checksum in (None, self._digest.hexdigest())

    def read_on(self, alive: Alive) -> None:
        """Count what is in the file behind the bytes counted so far."""
        with self.path.open("rb") as file:
            file.seek(self.have)
            while chunk := file.read(CHUNK):
                alive()
                self._digest.update(chunk)
                self.have += len(chunk)

    @contextlib.contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """A function that puts bytes behind those that are there; none beyond the file's size.

        Raises:
            MachineError: the disk is full, or cannot be written.
        """
        with _disk_errors(self.path):
            handle = self.path.open("ab", buffering=0)

        def append(data: bytes) -> None:
            view = memoryview(data)[: self.file.size - self.have]
            with _disk_errors(self.path):
                while view:
                    written = handle.write(view)  # less than asked for where the disk gets full
                    self._digest.update(view[:written])
                    self.have += written
                    view = view[written:]

        try:
            yield append
        finally:
            with _disk_errors(self.path), handle:
                os.fsync(handle.fileno())  # a power cut takes nothing of it

    def finish(self, target: Path) -> None:
        """Make it the file."""
        with _disk_errors(target):
            _replace_patiently(self.path, target)

    def throw_away(self) -> int:
        """Delete it; returns how many bytes were there."""
        with _disk_errors(self.path):
            self.path.unlink(missing_ok=True)
        lost, self.have = self.have, 0
        self._digest = new_digest(self.file)
        return lost


def new_digest(file: RemoteFile) -> "hashlib._Hash":
    """What its checksum is computed with: SHA-256, or git's for small files."""
    if file.sha256 is not None:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % file.size)
    return digest


def _drop_others(target: Path, kept: Path) -> None:
    """Delete what is left of other versions of this file."""
    pattern = re.compile(rf"{re.escape(target.name)}\.[^.]+{re.escape(PART_ENDING)}")
    for path in target.parent.iterdir():
        if path != kept and pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _take_copy(source: Path, part: Path, size: int, alive: Alive) -> None:
    """A second name for the same bytes takes no room; other disks and some file systems need a copy."""
    source = source.resolve()  # in a cache it is a link itself
    with contextlib.suppress(OSError):
        os.link(source, part)
        if part.stat().st_size != size:  # what is put behind it would get into the source
            part.unlink()
        return
    try:
        reader = source.open("rb")
    except OSError as error:  # then it is fetched
        logger.debug("%s cannot be copied: %s", source, error)
        return
    with reader, part.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            alive()
            writer.write(chunk)


def _replace_patiently(part: Path, target: Path) -> None:
    for pause in _PAUSES:
        try:
            part.replace(target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) is None:
                raise
        time.sleep(pause)
    part.replace(target)


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder that need not exist yet.

    Raises:
        MachineError: the disk is not there.
    """
    existing = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)
    with _disk_errors(folder):
        return shutil.disk_usage(existing).free


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What the disk says becomes a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise MachineError("disk_full", path=str(path.parent)) from error
        raise MachineError("cannot_write", path=str(path), reason=error.strerror or str(error)) from error

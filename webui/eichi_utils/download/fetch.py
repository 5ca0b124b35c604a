"""Fetching files: continued where they ended, however often that is, and checked before they get their name.

The bytes gather in `model.safetensors.0123456789ab.part` beside the file to be. Its name holds the beginning
of the checksum, so that another version is never continued. The process may be killed at any moment.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from diffusers_helper.errors import MachineError
from diffusers_helper.public import disk_errors, replace_file

from .hub import ConnectionLost, Hub
from .needed_files import RemoteFile
from .plan import PlannedFile, part_path
from .progress import Progress

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 120.0, 120.0)
"""Seconds before each new try without a byte in between; after them the download fails."""
TRIES = 2
"""The number of times that a damaged file is fetched before the download fails."""
CHUNK = 2**22
"""Bytes read from the disk at a time."""


class Backoff:
    """Waits longer and longer while the connection stays lost, and at last gives up."""

    def __init__(self, host: str, pauses: Sequence[float] = PAUSES) -> None:
        self._host = host
        self._pauses = pauses
        self._num_failed = 0

    def wait(self, error: ConnectionLost) -> None:
        """Wait before another try: as long as the server asks for, or longer.

        Raises:
            MachineError: it failed too often.
        """
        if self._num_failed >= len(self._pauses):
            raise MachineError("download_no_connection", host=self._host, reason=error.reason) from error
        pause = max(self._pauses[self._num_failed], error.pause or 0.0)
        self._num_failed += 1
        time.sleep(pause)

    def reset(self) -> None:
        """Begin with the shortest pause again, because something came."""
        self._num_failed = 0


class Fetcher:
    """Fetches and checks files, one after another, and reports their progress."""

    def __init__(self, hub: Hub, progress: Progress, backoff: Backoff) -> None:
        self._hub = hub
        self._progress = progress
        self._backoff = backoff

    def fetch(self, planned: PlannedFile) -> None:
        """Fetch the missing rest of a file. What has come is kept, whatever happens.

        Raises:
            MachineError: no room, no connection, no such file, or its content is wrong again and again.
        """
        counted, source = planned.counted_bytes, planned.source
        for _ in range(TRIES):
            self._progress.enter("checking", planned.name)
            with PartFile.open(planned.path, planned.remote, source) as part:
                self._progress.subtract(counted - part.num_bytes)  # it may have changed since
                self._fill(part, planned)
            with disk_errors(part.path.parent, part.path):
                if part.is_intact:
                    return replace_file(part.path, planned.path)
                part.path.unlink()
            self._progress.subtract(part.num_bytes)
            counted, source = 0, None
        raise MachineError("download_wrong_file", file=planned.name, host=self._hub.host)

    def check(self, planned: PlannedFile) -> None:
        """Read a complete file; one with wrong content is deleted and fetched. Raises like `fetch`."""
        self._progress.enter("checking", planned.name)
        with disk_errors(planned.path.parent, planned.path):
            with planned.path.open("rb") as file:
                is_intact = PartFile(planned.path, planned.remote, file).is_intact
            if is_intact:
                return
            planned.path.unlink()
        self._progress.subtract(planned.counted_bytes)
        self.fetch(replace(planned, counted_bytes=0, is_complete=False))

    def _fill(self, part: "PartFile", planned: PlannedFile) -> None:
        while part.num_bytes < planned.remote.size:
            try:
                for data in self._hub.read(planned.remote, part.num_bytes):
                    part.append(data)
                    self._progress.add(len(data), planned.name)
                    self._backoff.reset()
            except ConnectionLost as error:
                self._progress.enter("waiting", planned.name, error.reason)
                self._backoff.wait(error)


class PartFile:
    """The beginning of a file, open: `num_bytes` of it are there and counted into its checksum."""

    def __init__(self, path: Path, remote: RemoteFile, file: BinaryIO) -> None:
        self.path = path
        self.num_bytes = 0
        self._remote = remote
        self._file = file
        self._digest = _new_digest(remote)
        while chunk := file.read(CHUNK):
            self._count(chunk)

    @classmethod
    @contextlib.contextmanager
    def open(cls, target: Path, remote: RemoteFile, source: Path | None) -> Iterator["PartFile"]:
        """Open what is there of `target`; where nothing is, a copy of `source`. It is on the disk at the end.

        Raises:
            MachineError: the folder cannot be written, or the disk is full.
        """
        path = part_path(target, remote)
        with disk_errors(path.parent, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if source is not None and not path.exists():
                _copy(source, path, remote.size)
            file = path.open("a+b", buffering=0)
            with file:
                file.seek(0)
                yield cls(path, remote, file)
                os.fsync(file.fileno())  # a power cut takes nothing of it

    @property
    def is_intact(self) -> bool:
        """True where size and checksum are those of the remote file."""
        is_complete = self.num_bytes == self._remote.size
        return is_complete and self._remote.checksum in (None, self._digest.hexdigest())

    def append(self, data: bytes) -> None:
        """Write bytes behind those that are there."""
        rest = memoryview(data)
        with disk_errors(self.path.parent, self.path):
            while rest:  # less than asked for is written where the disk gets full
                written = self._file.write(rest)
                self._count(rest[:written])
                rest = rest[written:]

    def _count(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self.num_bytes += len(data)


def _new_digest(remote: RemoteFile) -> "hashlib._Hash":
    """Return the hash of its kind of checksum: SHA-256, or git's SHA-1 of a header and the content."""
    if len(remote.checksum or "") != 40:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % remote.size, usedforsecurity=False)


def _copy(source: Path, part: Path, size: int) -> None:
    """Make a hard link, which takes no room, or a copy where the file system or another disk needs one."""
    source = source.resolve()  # in a cache it is a link itself
    try:
        os.link(source, part)
    except OSError:
        with contextlib.suppress(OSError):  # what cannot be copied is fetched
            shutil.copyfile(source, part)
        return
    if part.stat().st_size != size:  # what is put behind it would get into the source
        part.unlink()

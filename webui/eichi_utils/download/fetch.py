"""Fetching what is missing: continued where it ended, however often that is, and checked at the end.

The bytes gather in `model.safetensors.0123456789ab.part` beside the file to be. Its name holds the beginning
of the checksum, so that another version is never continued. The process may be killed at any moment.

As a program (`python -m`), this is the only part of the app that talks to the network. It reports each change
as a line of JSON. When its standard input is closed, to stop it or because the app died, it ends at once.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.public import PARTS, delete_file, disk_errors, exclusive_lock, replace_file

from ..support.failures import describe_failure
from ..support.keep_awake import keep_awake
from .download import DownloadState, DownloadView
from .hub import ConnectionLost, Hub
from .model_folders import (
    ModelFolders,
    RemoteFile,
    file_size,
    files_of,
    find_models_in,
    is_weights,
    take_inventory,
)

LOCK = ".download.lock"
"""The name of the file in the target folder that is locked while a download writes there."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 120.0, 120.0)
"""Seconds before each new try without a byte in between; after them the download fails."""
TRIES = 2
"""The number of times that a damaged file is fetched before the download fails."""
CHUNK = 2**22
"""Bytes read from the disk at a time."""
REPORT_SECONDS = 0.2
"""Seconds between two reports that differ by bytes alone."""
SPEED_SECONDS = 15.0
"""Seconds over which the speed is measured."""
SURE_SECONDS = 2.0
"""Seconds of fetching after which the speed is known, and of a pause after which it is measured anew."""


def download(folders: ModelFolders, report: Callable[[DownloadView], object], check: bool = False) -> None:
    """Fetch what is missing; a `check` also reads what was downloaded before, as in `Download.start`.

    `report` is called with the download as it is after each change; the last state is `done` or `failed`.
    """
    progress = Progress(report)
    busy = MachineError("download_runs_already", path=str(folders.target))
    try:
        fetcher = Fetcher(folders, progress)
        with exclusive_lock(folders.target / LOCK, busy), keep_awake():
            fetcher.fetch_all(check)
    except BaseException as error:  # noqa: BLE001  (the app reports it)
        progress.enter("failed", failure=describe_failure(error))
    else:
        progress.enter("done")


class Progress:
    """The files to fetch, how much of them is there, and how fast the rest comes; each change is reported."""

    def __init__(self, report: Callable[[DownloadView], object]) -> None:
        self._report, self._view = report, DownloadView(state="asking")
        self._present: dict[RemoteFile, int] = {}
        """The planned files, each with the bytes of it that need not be fetched."""
        self._marks: deque[tuple[float, int]] = deque()
        """Times of fetching, and the bytes that were done by then."""

    def plan(
        self, folders: ModelFolders, list_files: Callable[[str], Sequence[RemoteFile]], check: bool
    ) -> list[RemoteFile]:
        """Return the files of incomplete parts, small ones first; in a check, also our own of the others.

        Raises MachineError where a repository lacks a file or the disk is too small.
        """
        list_once = functools.cache(list_files)
        self._present = {}
        settled, copied, disk = 0, 0, folders.target.stat().st_dev
        for part in take_inventory(folders).parts:
            spec = PARTS[part.name]
            is_own = part.folder == folders.target / spec.repository / spec.folder
            if part.state == "complete" and not (check and is_own):
                settled += part.num_bytes
                continue
            in_comfyui = folders.find_single_file(spec)
            for file in files_of(spec, list_once(spec.repository)):
                path, copy = folders.target / file.name, folders.find_copy(file)
                if in_comfyui and is_weights(file) and not path.exists():
                    continue
                left = min(file_size(folders.target / file.part_name) or 0, file.size)
                self._present[file] = file.size if copy and (copy == path or not left) else left
                if copy and copy != path and not left and copy.stat().st_dev != disk:
                    copied += file.size
        missing = sum(file.size - num_bytes for file, num_bytes in self._present.items())
        total = settled + sum(file.size for file in self._present)
        self._change(total_bytes=total, needed_bytes=missing, done_bytes=total - missing)
        folders.check_room(missing + copied)
        return sorted(self._present, key=lambda file: file.size)

    def enter(self, state: DownloadState, file: str | None = None, **reason: Any) -> None:
        """Set the state, with its file, and its `last_error` or `failure`."""
        if self._marks and time.monotonic() - self._marks[-1][0] >= SURE_SECONDS:
            self._marks.clear()
        self._change(state=state, speed=None, file=file, **{"last_error": None} | reason)

    def count(self, file: RemoteFile, num_bytes: int) -> None:
        """Note how many bytes of a file that is being fetched are there."""
        if self._view.state != "fetching":
            self.enter("fetching", file.name)
        done, now = self._view.done_bytes + num_bytes - self._present[file], time.monotonic()
        self._present[file] = num_bytes
        if done < self._view.done_bytes:  # something damaged was deleted
            self._marks.clear()
        if self._marks and now - self._marks[-1][0] < REPORT_SECONDS:
            self._view = replace(self._view, done_bytes=done)
            return
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= SPEED_SECONDS:
            self._marks.popleft()
        began, before = self._marks[0]
        speed = (done - before) / (now - began) if now - began >= SURE_SECONDS else None
        self._change(done_bytes=done, speed=speed)

    def _change(self, **values: Any) -> None:
        self._view = replace(self._view, **values)
        self._report(self._view)


class Fetcher:
    """Fetches files, one after another, reports their progress, and waits while the connection is lost."""

    def __init__(self, folders: ModelFolders, progress: Progress) -> None:
        self._folders, self._progress, self._hub, self._pauses = folders, progress, Hub(), iter(PAUSES)

    def fetch_all(self, check: bool) -> None:
        """Fetch what is missing, and see that it can be used; raises EngineError."""
        for file in self._progress.plan(self._folders, self._list_files, check):
            self._fetch(file, check)
        try:
            find_models_in(self._folders)  # what came is what the jobs will take
        except InputError:
            if check:
                raise
            self.fetch_all(check=True)  # all is there and as long as it should be, so the content is wrong

    def _fetch(self, file: RemoteFile, check: bool) -> None:
        """Fetch the missing rest of a file, in a check also a damaged one; what has come is always kept."""
        path, part = self._folders.target / file.name, self._folders.target / file.part_name
        with disk_errors(path.parent, path):
            if file_size(path) == file.size:
                if not check or file.checksum in (None, self._read(path, file).hexdigest()):
                    return
                delete_file(path)
        with disk_errors(path.parent, part):
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in {*path.parent.glob(f"{path.name}.{'[0-9a-f]' * 12}{part.suffix}")} - {part}:
                delete_file(other)  # of another version
            if not part.exists() and (source := self._folders.find_copy(file)) is not None:
                _copy(source, part)
            if not any(self._fill(part, file) for _ in range(TRIES)):
                raise MachineError("download_wrong_file", file=file.name, host=self._hub.host)
        with disk_errors(path.parent, path):
            replace_file(part, path)

    def _fill(self, part: Path, file: RemoteFile) -> bool:
        """Append bytes until it is complete and on the disk; False if they were wrong, and are deleted."""
        with part.open("ab") as opened:
            digest = self._read(part, file)
            self._progress.count(file, opened.tell())
            while opened.tell() < file.size:
                try:
                    for data in self._hub.read(file, opened.tell()):
                        opened.write(data)
                        opened.flush()
                        digest.update(data)
                        self._progress.count(file, opened.tell())
                        self._pauses = iter(PAUSES)
                except ConnectionLost as error:
                    self._wait(error, file.name)
            os.fsync(opened.fileno())  # a power cut takes nothing of it
            is_right = opened.tell() == file.size and file.checksum in (None, digest.hexdigest())
        if not is_right:
            delete_file(part)
            self._progress.count(file, 0)
        return is_right

    def _read(self, path: Path, file: RemoteFile) -> "hashlib._Hash":
        """Return the checksum, which is git's for a small file, of what is there."""
        self._progress.enter("checking", file.name)
        digest = hashlib.sha256()
        if len(file.checksum or "") == 40:
            digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        with path.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
        return digest

    def _list_files(self, repository: str) -> list[RemoteFile]:
        self._progress.enter("asking")
        try:
            files = self._hub.list_files(repository)
        except ConnectionLost as error:
            self._wait(error)
            return self._list_files(repository)
        self._pauses = iter(PAUSES)
        return files

    def _wait(self, error: ConnectionLost, file: str | None = None) -> None:
        """Wait longer and longer, or as the server asks for; raises MachineError after the last try."""
        self._progress.enter("waiting", file, last_error=error.reason)
        if (pause := next(self._pauses, None)) is None:
            raise MachineError("download_no_connection", host=self._hub.host, reason=error.reason) from error
        time.sleep(max(pause, error.pause))


def _copy(source: Path, part: Path) -> None:
    """Make a hard link, which takes no room, or a copy where the file system or another disk needs one."""
    source = source.resolve()  # in a cache it is a link itself
    try:
        os.link(source, part)
    except OSError:
        with contextlib.suppress(OSError):  # what cannot be copied is fetched
            shutil.copyfile(source, part)


def _connect() -> Callable[[DownloadView], object]:
    """Take the pipes away from the standard streams, where libraries could write and, on Windows, hang.

    Returns a function that writes a report.
    """
    orders, reports = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_app, args=(orders,), daemon=True).start()
    return lambda view: os.write(reports, json.dumps(asdict(view), default=str).encode() + b"\n")


def _end_with_the_app(orders: int) -> None:
    with contextlib.suppress(OSError):
        os.read(orders, 1)
    os._exit(0)


if __name__ == "__main__":
    asked_check, given, own, *caches = sys.argv[1:]
    searched = ModelFolders(Path(given) if given else None, Path(own), tuple(map(Path, caches)))
    download(searched, _connect(), check=bool(asked_check))

"""Fetching what is missing: continued where it ended, however often that is, and checked at the end.

The bytes gather in `model.safetensors.0123456789ab.part` beside the file to be. Its name holds the beginning
of the checksum, so that another version is never continued. The process may be killed at any moment.

As a program (`python -m`), this is the only part of the app that talks to the network. It reports each change
as a line of JSON. When its standard input is closed, to stop it or because the app died, it ends at once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.public import disk_errors, exclusive_lock, replace_file

from ..support.failures import Failure, describe_failure
from .download import DownloadState, DownloadView
from .hub import ConnectionLost, Hub
from .model_folders import ModelFolders, file_size, find_models_in
from .plan import DownloadPlan, RemoteFile, check_room, local_copy, make_plan, part_path

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
"""Seconds of fetching after which the speed is known."""


class Progress:
    """Counts bytes, measures their speed, and calls `report` with the download as it is after each change."""

    def __init__(self, report: Callable[[DownloadView], None]) -> None:
        self._report = report
        self._view = DownloadView(state="asking")
        self._plan = DownloadPlan({}, 0)
        self._marks: deque[tuple[float, int]] = deque()
        """The times since fetching began, and the bytes that were done by then."""

    def plan(self, plan: DownloadPlan) -> None:
        """Note how much there is, and how much of it is still to be fetched; `count` changes the plan."""
        self._plan, total, needed = plan, plan.total_bytes, plan.needed_bytes
        self._change(total_bytes=total, needed_bytes=needed, done_bytes=total - needed)

    def enter(
        self,
        state: DownloadState,
        file: str | None = None,
        last_error: str | None = None,
        failure: Failure | None = None,
    ) -> None:
        """Set the state, with its file or its error."""
        self._marks.clear()
        self._change(state=state, speed=None, file=file, last_error=last_error, failure=failure)

    def count(self, file: RemoteFile, num_bytes: int) -> None:
        """Note how many bytes of a file that is being fetched are there."""
        if self._view.state != "fetching":
            self.enter("fetching", file.name)
        self._plan.present[file] = num_bytes
        done, now = self._plan.total_bytes - self._plan.needed_bytes, time.monotonic()
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


def main(check: str, given: str, own: str, *caches: str, report: Callable[[DownloadView], None]) -> None:
    """Call `download`; `check` and `given` are empty for none. Every failure is reported."""
    progress = Progress(report)
    folders = ModelFolders(Path(given) if given else None, Path(own), tuple(map(Path, caches)))
    try:
        download(folders, progress, check=bool(check))
    except BaseException as error:  # noqa: BLE001  (the app reports it)
        progress.enter("failed", failure=describe_failure(error))
    else:
        progress.enter("done")


def download(
    folders: ModelFolders, progress: Progress, *, check: bool = False, pauses: Sequence[float] = PAUSES
) -> None:
    """Fetch what is missing.

    Args:
        check: also read the files that this app downloaded before, and fetch the damaged ones again.
        pauses: seconds before each new try while the connection is lost.

    Raises:
        MachineError: no connection, no room, another download runs, or the hub's files cannot be used.
        InputError: the models cannot be used, or HF_ENDPOINT is no address.
    """
    fetcher = Fetcher(folders, progress, pauses)
    busy = MachineError("download_runs_already", path=str(folders.target))
    with exclusive_lock(folders.target / LOCK, busy):
        fetcher.fetch_all(check)
        try:
            find_models_in(folders)  # what came is what the jobs will take
        except InputError:
            # All is there and as long as it should be, but cannot be used: so its content is checked.
            fetcher.fetch_all(check=True)
            find_models_in(folders)


@dataclass
class Fetcher:
    """Fetches files, one after another, reports their progress, and waits while the connection is lost."""

    folders: ModelFolders
    progress: Progress
    pauses: Sequence[float] = PAUSES
    hub: Hub = field(default_factory=Hub)
    num_failed: int = 0
    """Tries since something came."""

    def fetch_all(self, check: bool) -> None:
        """Fetch what is missing, small files first; raises like `download`."""
        plan = make_plan(self.folders, self._list_files, check=check)
        self.progress.plan(plan)
        check_room(plan, self.folders.target)
        for file in sorted(plan.present, key=lambda file: file.size):
            self.fetch(file, check)

    def fetch(self, file: RemoteFile, check: bool = False) -> None:
        """Fetch the missing rest of a file. What has come is kept, whatever happens.

        Args:
            check: read a file that is there; one with wrong content is deleted and fetched.

        Raises:
            MachineError: no room, no connection, no such file, or its content is wrong again and again.
        """
        path = self.folders.target / file.name
        part = part_path(path, file)
        with disk_errors(path.parent):
            if file_size(path) == file.size:
                if not check or self._is_intact(path, file):
                    return
                path.unlink()
            path.parent.mkdir(parents=True, exist_ok=True)
            source = local_copy(self.folders, file)
            if source is not None and not part.exists():
                _copy(source, part)
            for _ in range(TRIES):
                self._fill(part, file)
                if self._is_intact(part, file):
                    return replace_file(part, path)
                part.unlink()
        raise MachineError("download_wrong_file", file=file.name, host=self.hub.host)

    def _fill(self, part: Path, file: RemoteFile) -> None:
        """Append bytes until it is complete; it is on the disk at the end."""
        with part.open("ab") as opened:
            self.progress.count(file, opened.tell())
            while opened.tell() < file.size:
                try:
                    for data in self.hub.read(file, opened.tell()):
                        opened.write(data)
                        opened.flush()
                        self.progress.count(file, opened.tell())
                        self.num_failed = 0
                except ConnectionLost as error:
                    self._wait(error, file.name)
            os.fsync(opened.fileno())  # a power cut takes nothing of it

    def _is_intact(self, path: Path, file: RemoteFile) -> bool:
        """Return whether size and checksum on the disk are those of the remote file."""
        self.progress.enter("checking", file.name)
        digest = hashlib.sha256()
        if len(file.checksum or "") == 40:  # a small file has git's checksum
            digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        with path.open("rb") as opened:
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
        return file_size(path) == file.size and file.checksum in (None, digest.hexdigest())

    def _list_files(self, repository: str) -> list[RemoteFile]:
        while True:
            self.progress.enter("asking")
            try:
                return self.hub.list_files(repository)
            except ConnectionLost as error:
                self._wait(error)

    def _wait(self, error: ConnectionLost, file: str | None = None) -> None:
        """Wait longer and longer before another try, or as long as the server asks for.

        Raises:
            MachineError: it failed too often.
        """
        self.progress.enter("waiting", file, error.reason)
        if self.num_failed >= len(self.pauses):
            raise MachineError("download_no_connection", host=self.hub.host, reason=error.reason) from error
        pause = max(self.pauses[self.num_failed], error.pause)
        self.num_failed += 1
        time.sleep(pause)


def _copy(source: Path, part: Path) -> None:
    """Make a hard link, which takes no room, or a copy where the file system or another disk needs one."""
    source = source.resolve()  # in a cache it is a link itself
    try:
        os.link(source, part)
    except OSError:
        with contextlib.suppress(OSError):  # what cannot be copied is fetched
            shutil.copyfile(source, part)


def _connect() -> Callable[[DownloadView], None]:
    """Take the pipes away from the standard streams, where libraries could write and, on Windows, hang.

    Returns:
        A function that writes a report.
    """
    orders, reports = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def end_with_the_app() -> None:
        with contextlib.suppress(OSError):
            os.read(orders, 1)
        os._exit(0)

    threading.Thread(target=end_with_the_app, daemon=True).start()

    def report(view: DownloadView) -> None:
        os.write(reports, json.dumps(asdict(view), default=str).encode() + b"\n")

    return report


if __name__ == "__main__":
    main(*sys.argv[1:], report=_connect())

"""Bringing one file to its place: on from where it broke off, however often the line breaks, and checked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from diffusers_helper.errors import MachineError

from ..download_hub import Hub, LineBroken, WrongSize
from ..download_part import PartFile, is_right
from .plan import PlannedFile
from .progress import DownloadState, Tally

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 120.0, 120.0)
"""Seconds before each new try without a byte in between; after them it fails."""
TRIES = 2
"""So often a file is fetched before it is called damaged."""
Sleep = Callable[[float], None]
"""Waits so many seconds; raises StopRequested where the download is to end."""


class Patience:
    """Waits longer and longer while a line stays broken, and at last gives up."""

    def __init__(self, host: str, sleep: Sleep, pauses: Sequence[float] = PAUSES) -> None:
        self._host = host
        self._sleep = sleep
        self._pauses = pauses
        self._failed = 0

    def bear(self, error: LineBroken) -> None:
        """Wait before another try: as long as the server asks for, or longer.

        Raises:
            MachineError: it failed too often.
            StopRequested: the wait was cut short.
        """
        if self._failed >= len(self._pauses):
            raise MachineError("download_no_connection", host=self._host, reason=error.reason) from error
        pause = max(self._pauses[self._failed], error.pause or 0.0)
        self._failed += 1
        self._sleep(pause)

    def renew(self) -> None:
        """Something came."""
        self._failed = 0


class Fetcher:
    """Brings files, one after another, and tells the tally.

    Args:
        alive: raises StopRequested where the download is to end.
    """

    def __init__(self, hub: Hub, tally: Tally, alive: Callable[[], None], patience: Patience) -> None:
        self._hub = hub
        self._tally = tally
        self._alive = alive
        self._patience = patience

    def bring(self, planned: PlannedFile) -> None:
        """See to it that the file is there. What has come stays there whatever happens.

        Raises:
            MachineError: no room, no line, no such file, or its content is wrong again and again.
            StopRequested: the download is to end.
        """
        counted, source = planned.counted_bytes, planned.source
        for _ in range(TRIES):
            self._say("checking", planned)
            part = PartFile.open(planned.path, planned.remote, source, self._alive)
            self._tally.take_back(counted - part.have)  # what is there may have changed since
            self._fill(part, planned)
            if part.is_right:
                part.finish(planned.path)
                return
            self._tally.take_back(part.throw_away())
            counted, source = 0, None
        raise MachineError("download_wrong_file", file=planned.name, host=self._hub.host)

    def check(self, planned: PlannedFile) -> None:
        """Read a file that is there; one with wrong content is deleted and fetched. Raises like `bring`."""
        self._say("checking", planned)
        if not is_right(planned.path, planned.remote, self._alive):
            _delete(planned.path)
            self._tally.take_back(planned.counted_bytes)
            self.bring(replace(planned, here=0, is_there=False))

    def _fill(self, part: PartFile, planned: PlannedFile) -> None:
        """Fetch what lacks."""
        wrong_sizes = 0
        while not part.is_whole:
            try:
                self._stream(part, planned)
            except LineBroken as error:
                self._say("waiting", planned, error.reason)
                self._patience.bear(error)
            except WrongSize as error:
                wrong_sizes += 1
                if wrong_sizes == TRIES:  # what is there may be right: an answer may come from a log-in page
                    raise self._wrong_size(planned, error) from error

    def _stream(self, part: PartFile, planned: PlannedFile) -> None:
        """One request, to its end. Raises LineBroken where that comes too early."""
        self._alive()
        with self._hub.open(planned.remote, planned.commit, part.have) as body, part.appending() as append:
            self._say("fetching", planned)
            skipped = part.have - body.start  # the server cannot begin in the middle
            while not part.is_whole:
                data = body.read()
                self._alive()
                if not data:
                    raise LineBroken("reason.ended_early")
                new = data[min(skipped, len(data)) :]
                skipped -= len(data) - len(new)
                if new:
                    self._take(part, append, new)

    def _take(self, part: PartFile, append: Callable[[bytes], None], data: bytes) -> None:
        before = part.have
        append(data)
        self._tally.add(part.have - before, time.monotonic())
        self._patience.renew()

    def _wrong_size(self, planned: PlannedFile, error: WrongSize) -> MachineError:
        return MachineError(
            "download_wrong_size",
            file=planned.name,
            host=self._hub.host,
            size=error.size,
            expected=planned.remote.size,
        )

    def _say(self, state: DownloadState, planned: PlannedFile, trouble: str | None = None) -> None:
        self._tally.say(state, time.monotonic(), planned.name, trouble)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError("cannot_write", path=str(path), reason=error.strerror or str(error)) from error

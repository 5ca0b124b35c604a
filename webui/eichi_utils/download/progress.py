"""The progress of a download: counted by the process that downloads, seen elsewhere as frozen views."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..support.failures import Failure
from .needed_files import RemoteFile
from .plan import DownloadPlan

REPORT_SECONDS = 0.2
"""Seconds between two reports that differ by bytes alone."""
SPEED_SECONDS = 15.0
"""Seconds over which the speed is measured."""
SURE_SECONDS = 2.0
"""Seconds of fetching after which the speed is known."""

DownloadState = Literal["idle", "asking", "checking", "fetching", "waiting", "done", "stopped", "failed"]


@dataclass(frozen=True)
class DownloadView:
    """A download at one moment.

    Attributes:
        state: `asking` for the list of files; `checking` a file's content on the disk; `waiting` to try
            again after the connection was lost.
        is_stopping: it was asked to stop, and has not ended yet.
        done_bytes, total_bytes: of the whole set, with what was there before. 0 of 0 before it is known.
        needed_bytes: bytes that were missing when it began.
        speed: bytes a second; None while nothing comes or before it is known.
        file: `ORG/NAME/path` of the current file.
        last_error: the reason why the connection was lost, until bytes come again.
    """

    state: DownloadState = "idle"
    is_stopping: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    needed_bytes: int = 0
    speed: float | None = None
    file: str | None = None
    last_error: str | None = None
    failure: Failure | None = None

    @property
    def is_running(self) -> bool:
        return self.state in ("asking", "checking", "fetching", "waiting")

    @property
    def seconds_left(self) -> float | None:
        return (self.total_bytes - self.done_bytes) / self.speed if self.speed else None


class Progress:
    """Counts bytes, measures their speed, and reports each change.

    Args:
        report: takes the download as it is now.
        clock: gives seconds.
    """

    def __init__(
        self, report: Callable[[DownloadView], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
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
        done, now = self._plan.total_bytes - self._plan.needed_bytes, self._clock()
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

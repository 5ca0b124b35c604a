"""How far a download is: counted by the thread that makes it, seen by everybody else as frozen views.

Looks at no clock: whoever counts says when.
"""

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from ..support.failures import Failure

SPEED_SECONDS = 15.0
"""So far back goes the speed that is shown."""
SURE_SECONDS = 2.0
"""A speed is told after so long, not before."""
VIEW_SECONDS = 0.2
"""Bytes alone make a new version this often, not with each chunk."""

DownloadState = Literal["idle", "asking", "checking", "fetching", "waiting", "done", "stopped", "failed"]
ENDED = ("idle", "done", "stopped", "failed")


@dataclass(frozen=True)
class DownloadView:
    """A download at one moment.

    Attributes:
        version: rises with every change.
        state: `asking` for the list of files; `checking` a file's content on the disk; `waiting` to try
            again after the line broke.
        is_stopping: it was asked to stop, and has not ended yet.
        done_bytes, total_bytes: of the whole set, with what was there before. 0 of 0 before it is known.
        speed: bytes a second; None while nothing comes or it cannot be told yet.
        seconds_left: None where there is no speed.
        file: `ORG/NAME/path` of the file that it is at.
        last_error: why the line broke the last time; None once bytes come again.
        failure: why it failed; only in that state.
    """

    version: int
    state: DownloadState = "idle"
    is_stopping: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    speed: float | None = None
    seconds_left: float | None = None
    file: str | None = None
    last_error: str | None = None
    failure: Failure | None = None

    @property
    def is_running(self) -> bool:
        return self.state not in ENDED


class Tally:
    """The count. Every method may be called from any thread; times are of one steady clock, in seconds."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._view = DownloadView(0)
        self._speed = SpeedMeter()
        self._shown_at = 0.0

    def begin(self) -> bool:
        """A new download; False where one is running."""
        with self._changed:
            if self._view.is_running:
                return False
            self._speed = SpeedMeter()
            self._show(DownloadView(self._view.version, "asking"))
            return True

    def plan(self, done_bytes: int, total_bytes: int) -> None:
        """What is there before anything comes, and how much there will be."""
        with self._changed:
            self._show(replace(self._view, done_bytes=done_bytes, total_bytes=total_bytes))

    def say(
        self, state: DownloadState, now: float, file: str | None = None, last_error: str | None = None
    ) -> None:
        """What it does from now on."""
        with self._changed:
            self._speed.pause(now)
            view = replace(self._view, state=state, file=file, last_error=last_error)
            self._show(replace(view, speed=None, seconds_left=None))

    def add(self, num_bytes: int, now: float) -> None:
        """Bytes came over the line."""
        with self._changed:
            self._speed.add(num_bytes, now)
            speed = self._speed.value(now)
            done = self._view.done_bytes + num_bytes
            left = (self._view.total_bytes - done) / speed if speed else None
            view = replace(self._view, done_bytes=done, speed=speed, seconds_left=left, last_error=None)
            if now - self._shown_at >= VIEW_SECONDS:
                self._shown_at = now
                self._show(view)
            else:
                self._view = view

    def take_back(self, num_bytes: int) -> None:
        """Bytes that were counted are thrown away."""
        with self._changed:
            if num_bytes:
                self._show(replace(self._view, done_bytes=self._view.done_bytes - num_bytes))

    def stopping(self) -> None:
        """It was asked to stop."""
        with self._changed:
            self._show(replace(self._view, is_stopping=True))

    def end(self, state: Literal["done", "stopped", "failed"], failure: Failure | None = None) -> None:
        """It has ended."""
        with self._changed:
            self._show(
                replace(
                    self._view,
                    state=state,
                    is_stopping=False,
                    speed=None,
                    seconds_left=None,
                    file=None,
                    last_error=None,
                    failure=failure,
                )
            )

    def view(self) -> DownloadView:
        """The download as it is at this moment."""
        with self._changed:
            return self._view

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than `version`, at most `timeout` seconds; returns it."""
        with self._changed:
            self._changed.wait_for(lambda: self._view.version != version, timeout)
            return self._view.version

    def _show(self, view: DownloadView) -> None:
        self._view = replace(view, version=self._view.version + 1)
        self._changed.notify_all()


class SpeedMeter:
    """Bytes a second over the last while."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._total = 0

    def pause(self, now: float) -> None:
        """Something else than fetching was or is done: after a long while of it, measure anew."""
        if not self._marks or now - self._marks[-1][0] >= SURE_SECONDS:
            self._marks.clear()
            self._marks.append((now, self._total))

    def add(self, num_bytes: int, now: float) -> None:
        self._total += num_bytes
        if not self._marks or now - self._marks[-1][0] >= VIEW_SECONDS:
            self._marks.append((now, self._total))
        while len(self._marks) > 2 and now - self._marks[1][0] >= SPEED_SECONDS:
            self._marks.popleft()

    def value(self, now: float) -> float | None:
        """None before it can be told."""
        if not self._marks or now - self._marks[0][0] < SURE_SECONDS:
            return None
        began, before = self._marks[0]
        return (self._total - before) / (now - began)

"""All jobs of the app at one moment."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from .job import Job


@dataclass(frozen=True)
class QueueView:
    """All jobs at one moment. `version` rises with every change.

    `ended` and `unfinished` have the newest first; an unfinished job can be resumed, an ended one cannot.
    Where it `has_stopped`, the thread that makes videos has ended, and no job begins until the next start.
    """

    version: int
    running: Job | None
    waiting: tuple[Job, ...]
    ended: tuple[Job, ...]
    unfinished: tuple[Job, ...] = ()
    has_stopped: bool = False
    can_keep_going: bool = False
    """True while the running job, which was asked to stop, has not noticed that yet."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, the running one first."""
        running = () if self.running is None else (self.running,)
        return (*running, *self.waiting, *self.unfinished, *self.ended)

    @property
    def videos(self) -> list[Path]:
        """The videos of the jobs that are over."""
        return [job.video for job in (*self.unfinished, *self.ended) if job.video is not None]

    def without(self, gone: Collection[Path]) -> "QueueView":
        """Return the view in which no job that is over has one of these videos."""

        def left(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
            return tuple(replace(job, video=None) if job.video in gone else job for job in jobs)

        return replace(self, ended=left(self.ended), unfinished=left(self.unfinished))

"""The jobs that were thrown away: for a while they can be brought back, then their files are deleted."""

import threading
import time
from collections.abc import Iterable

from .job import Job
from .store import JobStore

SECONDS = 120.0
"""Seconds for which a job can be brought back. The next start of the app deletes what is left, too."""


class Trash:
    """The thrown-away jobs of a store. Safe to use from any thread."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._jobs: dict[str, tuple[Job, float]] = {}
        """By their ids, with the time at which each was thrown away."""

    @property
    def names(self) -> set[str]:
        """The names of the videos, which no other job may get."""
        with self._lock:
            return {job.name for job, _ in self._jobs.values()}

    def put(self, job: Job) -> None:
        """Throw a job away."""
        with self._lock:
            self._store.set_aside(job.id)
            self._jobs[job.id] = job, time.monotonic()
            if len(self._jobs) == 1:
                self._plan(SECONDS)

    def take(self, job_ids: Iterable[str]) -> list[Job]:
        """Bring jobs back; those that are gone for good are missing."""
        with self._lock:
            known = [self._jobs.pop(job_id)[0] for job_id in job_ids if job_id in self._jobs]
            return [job for job in known if self._store.bring_back(job.id)]

    def _plan(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._empty)
        timer.daemon = True
        timer.start()

    def _empty(self) -> None:
        """Delete the files of all that lies here for long enough."""
        with self._lock:
            now = time.monotonic()
            old = [job for job, thrown in self._jobs.values() if thrown <= now - SECONDS]
            for job in old:
                del self._jobs[job.id]
            if self._jobs:
                self._plan(max(min(thrown for _, thrown in self._jobs.values()) + SECONDS - now, 0))
        for job in old:
            job.spec.delete_left_files()  # first: who is killed in between finds the job again
            self._store.delete(job.id)

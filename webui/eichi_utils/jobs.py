"""All jobs of the app: one queue, and one thread that makes their videos one after another.

Pages only watch: they take frozen views, and everything goes on without them. Knows no page and no model;
whoever makes the videos is handed in.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Event
from diffusers_helper.request import GenerationRequest

from .failures import Failure, describe_failure
from .job import Clock, Job, JobSpec, JobState, JobView, MakeClock, Progress
from .job_files import JobFiles
from .output_names import new_name

__all__ = [
    "Clock",
    "Failure",
    "JobQueue",
    "JobSpec",
    "JobState",
    "JobView",
    "MakeClock",
    "Progress",
    "QueueView",
    "Run",
]

logger = logging.getLogger(__name__)

ENDED_KEPT = 20
MAX_RANDOM_SEED = 2**32
Run = Callable[[JobSpec, threading.Event], Iterator[Event]]


@dataclass(frozen=True)
class QueueView:
    """All jobs at one moment. `version` rises with every change; `ended` has the newest first."""

    version: int
    running: JobView | None
    waiting: tuple[JobView, ...]
    ended: tuple[JobView, ...]


class JobQueue:
    """The jobs. Every method may be called from any thread.

    Args:
        run: makes one job's video: yields the engine's events, Finished or Stopped at last; it is called
            in the queue's own thread, and asked to stop by the event that it is given.
        temp: a folder for copies of the jobs' pictures; what earlier runs left there is deleted.
        make_clock: makes the clock that tells a planned job's time left; without one nobody tells it.
    """

    def __init__(self, run: Run, temp: Path, make_clock: MakeClock | None = None) -> None:
        self._run = run
        self._files = JobFiles(temp)
        self._make_clock = make_clock
        self._adding = threading.Lock()
        self._changed = threading.Condition()
        self._version = 0
        self._running: Job | None = None
        self._waiting: list[Job] = []
        self._ended: list[Job] = []
        self._is_closing = False
        # A daemon: a job that cannot be stopped in time must not keep the app from ending.
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    # -- what pages do ---------------------------------------------------------------------------------

    def add(self, request: GenerationRequest, folder: Path) -> str:
        """Queue a video to be made in `folder`; from now on its seed, name and pictures are fixed.

        The request is a checked one; its pictures are copied, so that uploads may vanish.

        Returns:
            The job's id, which nobody can guess.

        Raises:
            InputError: a picture cannot be used; nothing is queued.
            MachineError: the copies cannot be written, or the app is being closed.
        """
        job_id = secrets.token_hex(8)
        with self._adding:  # one at a time: of many large pictures only one is in memory
            own, thumbnail = self._files.keep(job_id, request)
            if own.seed is None:
                own = replace(own, seed=secrets.randbelow(MAX_RANDOM_SEED))
            spec = JobSpec(job_id, self._free_name(folder), folder.absolute(), own)
            with self._changed:
                if not self._is_closing:
                    self._waiting.append(Job(spec, thumbnail, self._make_clock))
                    self._note_change()
                    return job_id
        self._files.drop(job_id)
        raise MachineError("closing")

    def remove(self, job_id: str) -> bool:
        """Take a waiting job out of the queue; False where it is not waiting (any more)."""
        with self._changed:
            place = self._place(job_id)
            if place is None:
                return False
            del self._waiting[place]
            self._note_change()
        self._files.drop(job_id)
        return True

    def move_up(self, job_id: str) -> bool:
        """Swap a waiting job with the one before it; False where it is not waiting (any more)."""
        with self._changed:
            place = self._place(job_id)
            if place is None:
                return False
            if place > 0:
                self._waiting.insert(place - 1, self._waiting.pop(place))
                self._note_change()
            return True

    def stop(self, job_id: str) -> bool:
        """Ask the running job to stop at its next step; False where it is not running (any more)."""
        with self._changed:
            if self._running is None or self._running.spec.id != job_id:
                return False
            if not self._running.stop.is_set():
                self._running.stop.set()
                self._note_change()
            return True

    def close(self, timeout: float) -> bool:
        """End: waiting jobs are dropped, the running one is asked to stop and waited for.

        Returns:
            Whether all has ended within `timeout` seconds. Where not, the next start deletes the copies.
        """
        with self._changed:
            self._is_closing = True
            self._waiting.clear()
            if self._running is not None:
                self._running.stop.set()
            self._note_change()
        self._worker.join(timeout)
        if self._worker.is_alive():
            return False
        self._files.close()
        return True

    # -- what pages see --------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Rises with every change."""
        with self._changed:
            return self._version

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than `version`, at most `timeout` seconds; returns it."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout)
            return self._version

    def view(self) -> QueueView:
        """All jobs as they are at this moment."""
        with self._changed:
            now = time.monotonic()
            return QueueView(
                version=self._version,
                running=None if self._running is None else self._running.view(now),
                waiting=tuple(job.view(now) for job in self._waiting),
                ended=tuple(job.view(now) for job in self._ended),
            )

    def find(self, job_id: str) -> JobView | None:
        """One job as it is at this moment; None where it was removed or has left the ended ones."""
        with self._changed:
            job = self._job(job_id)
            return None if job is None else job.view(time.monotonic())

    def thumbnail(self, job_id: str) -> bytes | None:
        """A WebP picture of what the job's video starts with, at most 128 pixels wide and high."""
        with self._changed:
            job = self._job(job_id)
            return None if job is None else job.thumbnail

    def preview(self, job_id: str) -> bytes | None:
        """A WebP picture of the running job's newest latents, frames side by side; None: there is none."""
        with self._changed:
            job = self._job(job_id)
            preview = None if job is None else job.preview
        return None if preview is None else preview.encoded()  # takes its time: not under the lock

    # -- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            failure = self._make(job)
            if failure is None and job.outcome == "done":
                self._files.drop(job.spec.id)  # its video holds the pictures
            self._end(job, failure)
            del job  # a long wait for the next one holds nothing of this one

    def _next_job(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if self._is_closing:
                return None
            job = self._running = self._waiting.pop(0)
            job.begin(time.monotonic())
            self._note_change()
            return job

    def _make(self, job: Job) -> Failure | None:
        """Run one job to its end. Whatever happens in it, this thread goes on to the next."""
        try:
            with _closed_at_end(self._run(job.spec, job.stop)) as events:
                for event in events:
                    with self._changed:
                        job.take(event, time.monotonic())
                        self._note_change()
            if job.outcome is None:
                raise MachineError("internal", detail="a job ended without a result")
        except BaseException as error:
            logger.warning("job %s failed", job.spec.name, exc_info=True)
            if job.outcome is None:  # what fails behind the result takes nothing from it
                return describe_failure(error, hide=job.texts)
        return None

    def _end(self, job: Job, failure: Failure | None) -> None:
        with self._changed:
            job.end(time.monotonic(), failure)
            self._running = None
            self._ended.insert(0, job)
            forgotten = self._ended[ENDED_KEPT:]
            del self._ended[ENDED_KEPT:]
            self._note_change()
        for old in forgotten:
            self._files.drop(old.spec.id)

    # -- helpers; all but the name's are called under the lock -----------------------------------------

    def _note_change(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _place(self, job_id: str) -> int | None:
        return next((place for place, job in enumerate(self._waiting) if job.spec.id == job_id), None)

    def _job(self, job_id: str) -> Job | None:
        running = [] if self._running is None else [self._running]
        return next((job for job in running + self._waiting + self._ended if job.spec.id == job_id), None)

    def _free_name(self, folder: Path) -> str:
        """A name that no file in the folder has, and no job either: a queued one has no file yet."""
        with self._changed:
            jobs = self._waiting + self._ended + ([] if self._running is None else [self._running])
            taken = {job.spec.name for job in jobs}
        while (name := new_name(folder)) in taken:
            time.sleep(0.001)  # names tell milliseconds
        return name


@contextlib.contextmanager
def _closed_at_end(events: Iterator[Event]) -> Iterator[Iterator[Event]]:
    """A generator that is left early cleans up here and now, not when somebody collects it."""
    try:
        yield events
    finally:
        if isinstance(events, Generator):
            events.close()

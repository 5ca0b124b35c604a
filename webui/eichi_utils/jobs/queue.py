"""All jobs of the app: one queue, and one thread that makes their videos one after another.

Pages only watch: they take frozen views, and everything goes on without them. Every job is on the disk as
soon as it is queued: the next start finds those that wait, and those that were not finished. Knows no page
and no model; whoever makes the videos is handed in.
"""

import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Event, Notice
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest

from ..output import new_name
from ..support.failures import Failure, describe_failure
from .job import Clock, Job, JobSpec, JobState, JobView, MakeClock, Progress
from .store import JobFiles, StoredJob

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
    """All jobs at one moment. `version` rises with every change.

    `ended` and `unfinished` have the newest first; an unfinished job can go on, an ended one cannot.
    """

    version: int
    running: JobView | None
    waiting: tuple[JobView, ...]
    ended: tuple[JobView, ...]
    unfinished: tuple[JobView, ...] = ()


class JobQueue:
    """The jobs. Every method may be called from any thread.

    Args:
        run: makes one job's video: yields the engine's events, Finished or Stopped at last; it is called
            in the queue's own thread, and asked to stop by the event that it is given.
        temp: a folder for the jobs; those that earlier runs left there come back: what waited waits again
            and is made, what was begun is unfinished until somebody decides.
        make_clock: makes the clock that tells a planned job's time left; without one nobody tells it.
        paused: no job begins before `resume`: what came back must not slow down the app's own start.
    """

    def __init__(
        self, run: Run, temp: Path, make_clock: MakeClock | None = None, paused: bool = False
    ) -> None:
        self._run = run
        self._files = JobFiles(temp)
        self._make_clock = make_clock
        self._adding = threading.Lock()
        self._changed = threading.Condition()
        self._version = 0
        self._running: Job | None = None
        self._waiting: list[Job] = []
        self._ended: list[Job] = []
        self._unfinished: list[Job] = []
        self._places = itertools.count()
        self._is_closing = False
        self._paused = paused
        self.notices: list[Notice] = []
        """What has to be said about jobs that could not be read."""
        self._restore_all()
        # A daemon: a job that cannot be stopped in time must not keep the app from ending.
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    def resume(self) -> None:
        """From now on, jobs begin."""
        with self._changed:
            self._paused = False
            self._note_change()

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
            work = self._files.work_folder(job_id)
            name = self._free_name(folder)
            spec = JobSpec(job_id, name, folder.absolute(), own, work, own.close_after)
            job = Job(spec, thumbnail, self._make_clock, next(self._places))
            self._record_new(job)
            with self._changed:
                if not self._is_closing:
                    self._waiting.append(job)
                    self._note_change()
                    return job_id
        self._files.drop(job_id)
        raise MachineError("closing")

    def _record_new(self, job: Job) -> None:
        try:
            self._files.record(job.spec, job.place, is_begun=False)
        except BaseException:
            self._files.drop(job.spec.id)
            raise

    def remove(self, job_id: str) -> bool:
        """Take a waiting job out of the queue; False where it is not waiting (any more).

        One that has finished sections from an earlier run is unfinished again.
        """
        with self._changed:
            place = self._place(job_id)
            if place is None:
                return False
            job = self._waiting.pop(place)
            if job.sections_done:
                job.interrupt()
                self._unfinished.insert(0, job)
                self._record(job)
            self._note_change()
        if not job.sections_done:
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
                moved, passed = self._waiting[place - 1 : place + 1]
                moved.place, passed.place = passed.place, moved.place
                for job in (moved, passed):
                    self._record(job)
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

    def finish(self, job_id: str, short: bool = False) -> bool:
        """Go on with an unfinished job, before all that wait; False where it is none (any more).

        Args:
            short: make the closing section now, and leave out those between it and what is finished, if there
                are any. Who has begun that can still have the whole.
        """
        with self._changed:
            job = self._take_unfinished(job_id)
            if job is None:
                return False
            request, done = job.spec.original_request, job.sections_done
            if short and 0 < done < len(make_plan(request).sections) - 1:
                request = replace(request, close_after=done)
            place = min([waiting.place for waiting in self._waiting], default=next(self._places)) - 1
            again = Job(replace(job.spec, request=request), job.thumbnail, self._make_clock, place)
            again.go_on_behind(job)
            self._waiting.insert(0, again)
            self._record(again)
            self._note_change()
            return True

    def discard(self, job_id: str) -> bool:
        """Throw an unfinished job away, with all it has made; False where it is none (any more)."""
        with self._changed:
            job = self._take_unfinished(job_id)
            if job is None:
                return False
            self._note_change()
        self._files.drop(job_id)
        for path in job.spec.left_files():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        return True

    def close(self, timeout: float) -> bool:
        """End: the running job is asked to stop and waited for. It and those that wait come back at the next
        start.

        Returns:
            Whether all has ended within `timeout` seconds.
        """
        with self._changed:
            self._is_closing = True
            if self._running is not None:
                self._running.stop.set()
            self._note_change()
        self._worker.join(timeout)
        return not self._worker.is_alive()

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
                unfinished=tuple(job.view(now) for job in self._unfinished),
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
            self._end(job, failure)
            del job  # a long wait for the next one holds nothing of this one

    def _next_job(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: (self._waiting and not self._paused) or self._is_closing)
            if self._is_closing:
                return None
            job = self._running = self._waiting.pop(0)
            job.begin(time.monotonic())
            self._record(job)
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
                return describe_failure(error, hide=job.spec.private_texts)
        return None

    def _end(self, job: Job, failure: Failure | None) -> None:
        can_go_on = failure is not None or self._is_worth_keeping(job)
        if not can_go_on:
            self._files.drop(job.spec.id)  # its video holds the pictures
        with self._changed:
            job.end(time.monotonic(), failure, can_go_on)
            self._running = None
            (self._unfinished if job.can_finish else self._ended).insert(0, job)
            del self._ended[ENDED_KEPT:]
            self._note_change()

    def _is_worth_keeping(self, job: Job) -> bool:
        """Whether a stopped job can go on: one that had not begun in earnest is gone, as its user wished."""
        return job.outcome == "stopped" and (self._is_closing or job.sections_done > 0)

    # -- after a start -----------------------------------------------------------------------------------

    def _restore_all(self) -> None:
        stored, self.notices = self._files.load()
        for known in stored:
            self._restore(known)
        self._unfinished.reverse()  # the newest first
        self._places = itertools.count(max((known.place for known in stored), default=-1) + 1)

    def _restore(self, known: StoredJob) -> None:
        job = Job(known.spec, known.thumbnail, self._make_clock, known.place)
        job.recall(known.sections_done, known.video)
        if known.is_begun:
            job.interrupt()
            self._unfinished.append(job)
        else:
            self._waiting.append(job)

    # -- helpers; all but the name's are called under the lock -----------------------------------------

    def _note_change(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _record(self, job: Job) -> None:
        """Write down what has changed; where that cannot be, the job itself is worth more."""
        try:
            self._files.record(job.spec, job.place, is_begun=job.state != "waiting")
        except MachineError:
            logger.warning("job %s cannot be written down", job.spec.name, exc_info=True)

    def _take_unfinished(self, job_id: str) -> Job | None:
        job = next((job for job in self._unfinished if job.spec.id == job_id), None)
        if job is not None:
            self._unfinished.remove(job)
        return job

    def _place(self, job_id: str) -> int | None:
        return next((place for place, job in enumerate(self._waiting) if job.spec.id == job_id), None)

    def _job(self, job_id: str) -> Job | None:
        return next((job for job in self._all_jobs() if job.spec.id == job_id), None)

    def _all_jobs(self) -> list[Job]:
        running = [] if self._running is None else [self._running]
        return running + self._waiting + self._unfinished + self._ended

    def _free_name(self, folder: Path) -> str:
        """A name that no file in the folder has, and no job either: a queued one has no file yet."""
        with self._changed:
            taken = {job.spec.name for job in self._all_jobs()}
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

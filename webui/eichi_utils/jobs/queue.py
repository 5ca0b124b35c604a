"""All jobs of the app: one queue, and one thread that makes their videos one after another.

Pages only watch: they take frozen views, and everything goes on without them. Every job is on the disk as
soon as it is queued: the next start finds those that wait, and those that were not finished.
"""

import contextlib
import itertools
import logging
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Event, Planned
from diffusers_helper.plan import make_plan
from diffusers_helper.public import holds_sections
from diffusers_helper.request import GenerationRequest

from ..output import new_name
from ..support.failures import Failure, describe_failure, shorten
from .job import Job, JobSpec, Run, StartEta, apply
from .stop import StopRequest
from .store import JobStore
from .trash import Trash
from .view import QueueView

logger = logging.getLogger(__name__)

KEPT_ENDED = 20
RETRY_SECONDS = 0.5
"""Seconds before the next job where one could not be begun or ended."""
MAX_RANDOM_SEED = 2**32


class JobQueue:
    """The jobs. Every method may be called from any thread.

    Args:
        run: makes one job's video, in the queue's own thread.
        temp: a folder for the jobs; those that earlier runs left there are restored: what waited waits again
            and is made, what was begun is unfinished until somebody decides.
        start_eta: returns the remaining time of a job that was planned; without it, none is known.
        paused: no job begins before `resume`: restored ones must not slow down the app's own start.
        home, output: of the app and of its videos, see `JobStore`.
    """

    def __init__(
        self,
        run: Run,
        temp: Path,
        start_eta: StartEta | None = None,
        paused: bool = False,
        home: Path | None = None,
        output: Path | None = None,
    ) -> None:
        self._run = run
        self._store = JobStore(temp, home, output)
        self._start_eta = start_eta
        self._adding = threading.Lock()
        self._changed = threading.Condition()
        self._version = 0
        self._closing = False
        self._paused = paused
        self._stop = StopRequest()
        self._trash = Trash(self._store)
        jobs, self.notices = self._store.load()
        """Notices about jobs that could not be read."""
        self._jobs = {job.id: job for job in jobs}
        """By their ids, in the order of their last changes."""
        self._positions = itertools.count(max((job.position for job in jobs), default=-1) + 1)
        # A daemon: a job that cannot be stopped in time must not keep the app from ending.
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    # -- what pages do ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let jobs begin from now on."""
        with self._changed:
            self._paused = False
            self._note_change()

    def add(self, request: GenerationRequest, folder: Path, eight_bit: bool | None = None) -> str:
        """Queue a video to be made in `folder`; from now on its seed, name, pictures and weights are fixed.

        The request is a checked one; its pictures are copied, so that uploads may vanish. `eight_bit` is the
        choice of weights, see `JobSpec`.

        Returns:
            The job's id, which nobody can guess.

        Raises:
            InputError: a picture cannot be used; nothing is queued.
            MachineError: the copies cannot be written, or the app is being closed.
        """
        if random_seed := request.seed is None:
            request = replace(request, seed=secrets.randbelow(MAX_RANDOM_SEED))
        with self._adding:  # one at a time: of many large pictures only one is in memory
            # a job that waits has no file yet
            name = new_name(folder, {job.name for job in self.view().jobs} | self._trash.names)
            position, folder = next(self._positions), folder.absolute()
            job = self._store.add(name, folder, request, position, eight_bit, random_seed)
            with self._changed:
                if not self._closing:
                    self._put(job)
                    return job.id
        self._store.delete(job.id)
        raise MachineError("closing")

    def remove(self, job_id: str) -> bool:
        """Take a waiting job out of the queue; False where it is not waiting (any more).

        One that has finished sections from an earlier run is unfinished again; `restore` brings others back.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state != "waiting":
                return False
            if job.progress.sections_done:
                self._put(job.mark_interrupted(), write=True)
            else:
                self._throw_away(job)
            return True

    def clear(self) -> list[str]:
        """Remove all jobs that wait; returns the ids of those that `restore` can bring back."""
        with self._changed:
            waiting = self.view().waiting
            return [job.id for job in waiting if self.remove(job.id) and job.id not in self._jobs]

    def restore(self, job_ids: Iterable[str]) -> bool:
        """Bring back jobs that were removed or discarded; False where all of them are gone for good."""
        with self._changed:
            jobs = self._trash.take(job_ids)
            for job in jobs:
                self._put(replace(job, held=False), write=True)
            return bool(jobs)

    def hold(self, job_id: str) -> bool:
        """Begin a waiting job only after `release` or `supersede`; False where it is not waiting (any more).

        One that has finished sections from an earlier run cannot be held.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state != "waiting" or job.progress.sections_done:
                return False
            self._put(replace(job, held=True))
            return True

    def release(self, job_id: str) -> bool:
        """Let a held job be begun again; False where it is not held (any more)."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.held:
                return False
            self._put(replace(job, held=False))
            return True

    def supersede(self, job_id: str, by: str) -> bool:
        """Put a waiting job in the place of a held one, which goes; False where none is held (any more)."""
        with self._changed:
            held, job = self._jobs.get(job_id), self._jobs.get(by)
            if held is None or not held.held:
                return False
            if job is not None and job.state == "waiting":
                self._put(replace(job, position=held.position), write=True)
            self._throw_away(held)
            return True

    def move_up(self, job_id: str) -> bool:
        """Swap a waiting job with the one before it; False where it is not waiting (any more)."""
        with self._changed:
            waiting = self.view().waiting
            if job_id not in (ids := [job.id for job in waiting]):
                return False
            if index := ids.index(job_id):
                before, job = waiting[index - 1 : index + 1]
                self._put(replace(job, position=before.position), write=True)
                self._put(replace(before, position=job.position), write=True)
            return True

    def stop(self, job_id: str) -> bool:
        """Ask the running job to stop at its next step; False where it is not running (any more)."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state != "running":
                return False
            if not job.stopping:
                self._stop.set()
                self._put(replace(job, stopping=True))
            return True

    def keep_going(self, job_id: str) -> bool:
        """Take a request to stop back; False where the job has noticed it, and stops, or has ended."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.stopping or self._closing or not self._stop.take_back():
                return False
            self._put(replace(job, stopping=False))
            return True

    def finish(self, job_id: str, short: bool = False) -> bool:
        """Resume an unfinished job, before all that wait; False where it is none (any more).

        Args:
            short: make the closing section now, and leave out those between it and what is finished, if there
                are any. The whole video can still be made after that was begun.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.can_finish:
                return False
            done, request = job.progress.sections_done, replace(job.request, close_after=job.spec.close_after)
            if short and 0 < done < len(make_plan(request).sections) - 1:
                request = replace(request, close_after=done)
            first = min((other.position for other in self.view().waiting), default=next(self._positions))
            self._put(job.requeued(request, first - 1), write=True)
            return True

    def discard(self, job_id: str) -> bool:
        """Throw an unfinished job away; False where it is none (any more).

        What it has made is deleted when `restore` cannot bring it back any longer.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.can_finish:
                return False
            self._throw_away(job)
            return True

    def close(self, timeout: float) -> bool:
        """Stop the running job and wait for it; it and those that wait are restored at the next start.

        Returns:
            True where all has ended within `timeout` seconds.
        """
        with self._changed:
            self._closing = True
            if (running := self.view().running) is not None:
                self.stop(running.id)
            self._note_change()
        self._worker.join(timeout)
        return not self._worker.is_alive()

    # -- what pages see --------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """A number that rises with every change."""
        with self._changed:
            return self._version

    @property
    def has_stopped(self) -> bool:
        """True where the thread that makes videos has ended while the app goes on: nothing should do that."""
        return not self._worker.is_alive() and not self._closing

    def view(self) -> QueueView:
        """Return all jobs as they are at this moment."""
        with self._changed:
            now = time.monotonic()
            self._jobs = {job_id: job.at(now) for job_id, job in self._jobs.items()}  # no bar falls
            newest = tuple(reversed(self._jobs.values()))
            waiting = (job for job in newest if job.state == "waiting")
            return QueueView(
                version=self._version,
                running=next((job for job in newest if job.state == "running"), None),
                waiting=tuple(sorted(waiting, key=lambda job: (job.position, job.name))),
                ended=tuple(job for job in newest if job.ended and not job.can_finish),
                unfinished=tuple(job for job in newest if job.can_finish),
                has_stopped=self.has_stopped,
                can_keep_going=not (self._stop.is_seen or self._closing),
            )

    def find(self, job_id: str) -> Job | None:
        """Return a job as it is at this moment; None where it was removed or has left the ended ones."""
        with self._changed:
            job = self._jobs.get(job_id)
            return job and job.at(time.monotonic())

    # -- the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Make one job after another until the queue is closed, whatever is raised in or between them."""
        trouble: BaseException | None = None
        while True:
            try:
                if trouble is not None:
                    self._end_running(trouble)
                trouble = None
                while (spec := self._begin_next()) is not None:
                    self._end(spec.id, self._make(spec))
                return
            except BaseException as error:
                trouble = error
                with contextlib.suppress(BaseException):
                    logger.warning("a job could not be begun or ended", exc_info=True)
                with contextlib.suppress(BaseException):
                    time.sleep(RETRY_SECONDS)  # memory or file descriptors may be free again then

    def _end_running(self, error: BaseException) -> None:
        """End the job that could not be ended as usual; what cannot begin has failed, too."""
        failure = Failure("unexpected", {"reason": shorten(error), "place": __name__}, "")
        with self._changed:
            for job in [job for job in self._jobs.values() if job.state == "running"]:
                job = replace(job, stopping=False, eta=None, ended=time.monotonic())
                failed = replace(job, state="failed", failure=failure, can_finish=True)
                self._put(failed if job.outcome is None else replace(job, state=job.outcome))

    def _begin_next(self) -> JobSpec | None:
        with self._changed:
            self._changed.wait_for(lambda: (self._ready() and not self._paused) or self._closing)
            if self._closing:
                return None
            job = replace(self._ready()[0], state="running", started=time.monotonic())
            self._stop = StopRequest()
            self._put(job, write=True)
            return job.spec

    def _make(self, spec: JobSpec) -> Failure | None:
        """Run one job to its end. Whatever happens in it, this thread goes on to the next."""
        try:
            with contextlib.closing(self._run(spec, self._stop)) as events:
                for event in events:
                    self._apply(spec.id, event)
            if self._jobs[spec.id].outcome is None:
                raise MachineError("internal", detail="a job ended without a result")
        except BaseException as error:
            logger.warning("job %s failed", spec.name, exc_info=True)
            if self._jobs[spec.id].outcome is None:  # what fails after the result takes nothing from it
                return describe_failure(error, hide=spec.private_texts)
        return None

    def _apply(self, job_id: str, event: Event) -> None:
        with self._changed:
            now = time.monotonic()
            job = apply(self._jobs[job_id], event, now)
            if isinstance(event, Planned) and self._start_eta is not None:
                job = replace(job, eta=replace(self._start_eta(job.request, event), mark=now))
            self._put(job)
        if job.outcome == "done" and job.eta is not None:
            job.eta.remember()

    def _end(self, job_id: str, failure: Failure | None) -> None:
        job = self._jobs[job_id]
        # One that was stopped before anything was kept is deleted.
        is_kept = self._closing or holds_sections(job.spec.work)
        can_finish = failure is not None or (job.outcome == "stopped" and is_kept)
        if not can_finish:
            self._store.delete(job_id)  # its video holds the pictures
        with self._changed:
            self._put(self._jobs[job_id].end(time.monotonic(), failure, can_finish))
            for old in self.view().ended[KEPT_ENDED:]:
                del self._jobs[old.id]

    # -- helpers, called under the lock ----------------------------------------------------------------

    def _ready(self) -> list[Job]:
        return [job for job in self.view().waiting if not job.held]

    def _note_change(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _throw_away(self, job: Job) -> None:
        self._trash.put(job)
        del self._jobs[job.id]
        self._note_change()

    def _put(self, job: Job, write: bool = False) -> None:
        """Add a job, or replace it. Where one cannot be written to the disk, the job itself is worth more."""
        self._jobs.pop(job.id, None)
        self._jobs[job.id] = job
        self._note_change()
        if write:
            try:
                self._store.write(job)
            except Exception:
                logger.warning("job %s cannot be written to the disk", job.name, exc_info=True)

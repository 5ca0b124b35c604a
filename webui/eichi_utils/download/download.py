"""The models' download: one thread that brings what lacks, watched through frozen views like the jobs.

The files go to plain folders `ORG/NAME/...` below the target, not into the layout of Hugging Face's cache:
that needs links, which Windows gives to few users, and belongs to a library that changes it and begins a
killed download anew. In a plain folder a half file is seen, is gone on with by any later run, and can be
moved by hand. Knows no page and no torch.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from filelock import FileLock, Timeout

from diffusers_helper.errors import InputError, MachineError, StopRequested

from ..download_hub import Hub, LineBroken
from ..support.failures import describe_failure
from .fetch import PAUSES, Fetcher, Patience
from .model_folders import ModelFolders, find_models_in
from .needed_files import Listing
from .plan import DownloadPlan, make_plan
from .progress import DownloadState, DownloadView, Tally

__all__ = ["Download", "DownloadPlan", "DownloadState", "DownloadView", "ModelFolders"]

logger = logging.getLogger(__name__)

LOCK = ".download.lock"
"""In the target folder, while a download writes there."""


class Download:
    """The download of the models. Every method may be called from any thread.

    Args:
        places: where models may lie, and where the download goes.
        make_hub: makes the client; called anew for each plan and each start.
        pauses: seconds before each new try while the line is broken.
    """

    def __init__(
        self, places: ModelFolders, make_hub: Callable[[], Hub] = Hub, pauses: Sequence[float] = PAUSES
    ) -> None:
        self._places = places
        self._make_hub = make_hub
        self._pauses = pauses
        self._tally = Tally()
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def places(self) -> ModelFolders:
        return self._places

    # -- what pages do ---------------------------------------------------------------------------------

    def plan(self) -> DownloadPlan:
        """What is there, what is to come, how large and where to. Asks the hub, and so takes seconds.

        Raises:
            MachineError: the hub cannot be reached or refuses; the disk cannot be read.
            InputError: HF_ENDPOINT is no address.
        """
        hub = self._make_hub()
        try:
            return make_plan(self._places, hub.listing)
        except LineBroken as error:
            raise MachineError("download_no_connection", host=hub.host, reason=error.reason) from error

    def start(self, *, check: bool = False) -> bool:
        """Begin, or go on where an earlier download ended; False where this one is running.

        Whatever goes wrong is told by the view.

        Args:
            check: also read the files that this app downloaded before, and fetch the damaged ones again.
        """
        with self._starting:
            if not self._tally.begin():
                return False
            self._stop = threading.Event()
            # A daemon: what has come stays on the disk, so it must not keep the app from ending.
            self._thread = threading.Thread(
                target=self._work, args=(self._stop, check), name="download", daemon=True
            )
            self._thread.start()
            return True

    def cancel(self) -> bool:
        """Ask it to end; what has come is kept. False where nothing is running."""
        with self._starting:
            if not self._tally.view().is_running:
                return False
            self._stop.set()
            self._tally.stopping()
            return True

    def close(self, timeout: float) -> bool:
        """End; returns whether it has ended within so many seconds."""
        self.cancel()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    # -- what pages see --------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Rises with every change."""
        return self._tally.view().version

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than `version`, at most `timeout` seconds; returns it."""
        return self._tally.wait(version, timeout)

    def view(self) -> DownloadView:
        """The download as it is at this moment."""
        return self._tally.view()

    # -- the thread ------------------------------------------------------------------------------------

    def _work(self, stop: threading.Event, check: bool) -> None:
        try:
            self._download(stop, check)
        except StopRequested:
            self._tally.end("stopped")
        except BaseException as error:
            logger.warning("the download failed", exc_info=True)
            self._tally.end("failed", describe_failure(error))
        else:
            self._tally.end("done")

    def _download(self, stop: threading.Event, check: bool) -> None:
        """The recipe."""
        hub = self._make_hub()
        patience = Patience(hub.host, lambda seconds: _sleep(stop, seconds), self._pauses)
        with _only_download(self._places):
            try:
                self._bring(hub, stop, patience, check)
                find_models_in(self._places)  # what came is what the jobs will take
            except InputError:
                if check:
                    raise
                # All is there and as long as it should be, but cannot be used: its content tells why.
                self._bring(hub, stop, patience, True)
                find_models_in(self._places)

    def _bring(self, hub: Hub, stop: threading.Event, patience: Patience, check: bool) -> None:
        plan = make_plan(self._places, lambda name: self._list(hub, name, patience), check=check)
        plan.check_disk()
        self._tally.plan(plan.total_bytes - plan.needed_bytes, plan.total_bytes)
        fetcher = Fetcher(hub, self._tally, lambda: _sleep(stop, 0.0), patience)
        for file in plan.files:
            if not file.is_there:
                fetcher.bring(file)
            elif check:
                fetcher.check(file)

    def _list(self, hub: Hub, repository: str, patience: Patience) -> Listing:
        while True:
            self._tally.say("asking", time.monotonic())
            try:
                listing = hub.listing(repository)
            except LineBroken as error:
                self._tally.say("waiting", time.monotonic(), last_error=error.reason)
                patience.bear(error)
            else:
                patience.renew()
                return listing


def _sleep(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise StopRequested


@contextlib.contextmanager
def _only_download(places: ModelFolders) -> Iterator[None]:
    """The target folder for this download alone, in this process and in others.

    Raises:
        MachineError: another download has it; it cannot be written.
    """
    folder = places.target
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MachineError("download_runs_already", path=str(folder)) from error
    except OSError as error:
        raise MachineError("cannot_write", path=str(folder), reason=error.strerror or str(error)) from error
    try:
        yield
    finally:
        lock.release()

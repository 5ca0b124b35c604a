"""The transformer's weights of 8 bits, as the app has them: where they lie, and made before the first job.

`diffusers_helper.eight_bit.conversion` makes them; here that becomes events. Knows no job and no page.
"""

import contextlib
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from filelock import FileLock, Timeout

from diffusers_helper.eight_bit.conversion import convert, eight_bit_folder, look
from diffusers_helper.errors import InputError, MachineError, StopRequested
from diffusers_helper.events import Notice, StageProgress, StageStarted
from diffusers_helper.machine_errors import machine_errors
from diffusers_helper.weights.model_files import ModelPart

from .download.model_folders import ModelFolders
from .engine_options import DEMO
from .machine.memory_and_disk import look_at_folder

LOCK = "lock"
LOOK_SECONDS = 0.2
"""How often somebody looks how far the work is, and whether to stop it."""


def choose_root(source: ModelPart, places: ModelFolders, cache: Path) -> Path:
    """The folder below which a transformer's weights of 8 bits belong: that of the models, if it is ours.

    Not ours is what comes with the app (the demo), where no download of the app would go (Hugging Face's own
    cache) or where nothing can be written. Then it is a folder in `cache`; what is finished there is used
    also when the models' folder can be written again.

    Raises:
        OSError: a folder cannot be read now.
    """
    if source.folder.resolve().is_relative_to(DEMO.resolve()):
        return cache / "eight_bit" / "demo"
    root, cached = places.target, cache / "eight_bit" / "models"
    if source.folder.is_relative_to(root):
        folder = eight_bit_folder(root)
        if look(folder, source) == "complete":
            return root
        if look(eight_bit_folder(cached), source) != "complete" and look_at_folder(folder).writable:
            return root
    return cached


def make_eight_bit(
    source: ModelPart, folder: Path, stop: threading.Event
) -> Generator[Notice | StageStarted | StageProgress, None, None]:
    """Make the weights of 8 bits in `folder`, or go on with them, telling how far that is.

    Whatever ends it early, also a caller that wants no more events, the finished files stay.

    Raises:
        StopRequested: `stop` was set.
        InputError: another run of the app makes them just now; the source cannot be used.
        MachineError: the disk is full, cannot be read or written, or gives back something else.
    """
    if stop.is_set():
        raise StopRequested
    yield Notice("eight_bit", {"path": str(folder)})
    yield StageStarted("eight_bit")
    with machine_errors(folder), _only_maker(folder), ThreadPoolExecutor(1, "eight-bit") as pool:
        latest, ended = _Latest(), threading.Event()
        work = pool.submit(convert, source, folder, latest.tell, ended)
        try:
            yield from _watch(work, latest, stop, ended)
        finally:
            ended.set()
    _raise_failure(work, folder)


class _Latest:
    """How far the work is, from its thread to the one that tells."""

    def __init__(self) -> None:
        self.percent = 0

    def tell(self, done: int, total: int) -> None:
        self.percent = 100 * done // max(total, 1)


def _watch(
    work: Future[None], latest: _Latest, stop: threading.Event, ended: threading.Event
) -> Iterator[StageProgress]:
    told = -1
    while not work.done():
        if stop.is_set():
            ended.set()
        if latest.percent != told:
            told = latest.percent
            yield StageProgress(told / 100)
        wait([work], LOOK_SECONDS)


def _raise_failure(work: Future[None], folder: Path) -> None:
    """What ended the work; a disk that is too small with a sentence that says what it is needed for."""
    try:
        work.result()
    except MachineError as error:
        if error.code != "disk_too_small":
            raise
        needed, free = error.values["needed"], error.values["free"]
        raise MachineError("eight_bit_disk_too_small", path=str(folder), needed=needed, free=free) from error


@contextlib.contextmanager
def _only_maker(folder: Path) -> Iterator[None]:
    """Two runs would throw each other's files away."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)  # the system lets go of it if this process dies
    except Timeout as error:
        raise InputError("eight_bit_busy", path=str(folder)) from error
    try:
        yield
    finally:
        lock.release()

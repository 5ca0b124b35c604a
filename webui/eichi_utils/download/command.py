"""The download on the terminal: one line of progress, and every end in one sentence."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

from diffusers_helper.errors import EngineError, InputError

from ..support.failures import as_engine_error
from ..terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, report
from ..text.error_text import failure_text, reason_text
from ..text.translations import Translator
from .download import Download, DownloadView, ModelFolders
from .plan import DownloadPlan, gigabytes

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


def run_download(places: ModelFolders, words: Translator, download: Download | None = None) -> int:
    """Bring what lacks; where nothing does, read the files that were downloaded and replace damaged ones.

    Ctrl-C asks to end, a second one ends at once; either way the next run goes on from there.

    Args:
        download: one to use; None: a new one for these places.

    Returns:
        The exit status: 0 done, 1 failed, 2 input that cannot be used, 130 stopped.
    """
    download = download or Download(places)
    asked = threading.Event()
    try:
        with _noted_ctrl_c(asked):
            plan = download.plan()
            _tell(plan, words)
            download.start(check=plan.is_complete)
            view = _follow(download, asked, words)
    except KeyboardInterrupt:
        report(words("stopped.at_once"))
        return EXIT_STOPPED
    except Exception as caught:  # the edge of the app: no traceback reaches the user
        logger.debug("failed", exc_info=True)
        error = as_engine_error(caught)
        return _fail(words(f"error.{error.code}", **error.values), error, words)
    return _conclude(view, plan, words)


def _tell(plan: DownloadPlan, words: Translator) -> None:
    """What is there, and what will be done."""
    for part in plan.look.parts:
        if part.state == "complete":
            report(words("download.found", name=part.name, folder=part.folder))
    if plan.is_complete:
        report(words("download.checking_all"))
        return
    total, needed, free = (gigabytes(size) for size in (plan.total_bytes, plan.needed_bytes, plan.free_bytes))
    report(words("download.plan", total=total, needed=needed, folder=plan.target, free=free))


def _follow(download: Download, asked: threading.Event, words: Translator) -> DownloadView:
    """Show the progress until it has ended."""
    bar = tqdm(disable=None, unit="B", unit_scale=True, file=sys.stderr, dynamic_ncols=True)
    with bar:
        before = view = download.view()
        while view.is_running:
            if asked.is_set() and not view.is_stopping:
                report(words("download.stopping"))
                download.cancel()
            _show(bar, before, view, words)
            before = view
            download.wait(view.version, LOOK_SECONDS)
            view = download.view()
        _show(bar, before, view, words)
    return view


def _show(bar: tqdm, before: DownloadView, view: DownloadView, words: Translator) -> None:
    if view.last_error is not None and view.last_error != before.last_error:
        report(words("download.waiting", reason=reason_text(view.last_error, words)))
    if bar.disable:
        if view.file is not None and view.file != before.file:
            done, total = gigabytes(view.done_bytes), gigabytes(view.total_bytes)
            report(words("download.at_file", file=view.file, done=done, total=total))
        return
    if view.total_bytes and not bar.total:
        bar.reset(view.total_bytes)
        bar.initial = view.done_bytes  # what was there before is no speed
    bar.n = view.done_bytes
    bar.set_postfix_str(view.file or "", refresh=False)
    bar.refresh()


def _conclude(view: DownloadView, plan: DownloadPlan, words: Translator) -> int:
    if view.state == "stopped":
        report(words("download.stopped"))
        return EXIT_STOPPED
    if view.failure is not None:
        return _fail(failure_text(view.failure, words), None, words)
    report(words("download.done", folder=plan.target))
    return EXIT_DONE


def _fail(sentence: str, error: EngineError | None, words: Translator) -> int:
    report(words("failed", reason=sentence))
    return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED


@contextlib.contextmanager
def _noted_ctrl_c(asked: threading.Event) -> Iterator[None]:
    """The first Ctrl-C is noted, the second ends at once."""

    def note(_signal: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

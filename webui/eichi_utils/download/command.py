"""The download on the terminal: one line of progress, and every end in one sentence."""

import sys
import threading

from tqdm import tqdm

from diffusers_helper.errors import MachineError

from ..support.failures import describe_failure
from ..terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, report, stop_on_ctrl_c
from ..text.error_text import error_text, reason_text
from ..text.translations import Translator
from .download import Download, DownloadView, find_endpoint, host_of
from .licences import licence_lines
from .model_folders import ModelFolders, free_bytes, gigabytes, take_inventory

POLL_SECONDS = 0.5


def run_download(folders: ModelFolders, words: Translator) -> int:
    """Fetch what is missing; where nothing is, check what was downloaded and fetch damaged files again.

    The first Ctrl-C stops it, the second ends it at once; either way the next run continues.

    Returns:
        The exit status: 0 done, 1 failed, 2 input that cannot be used, 130 stopped.
    """
    stop = threading.Event()
    try:
        inventory = take_inventory(folders)
        is_complete = inventory.state == "complete"
        for part in inventory.parts:
            if part.state == "complete":
                report(words("download.found", name=part.name, folder=part.folder))
        if is_complete:
            report(words("download.checking_all"))
        with stop_on_ctrl_c(stop, words("download.stopping")):
            view = _run(folders, is_complete, stop, words)
    except KeyboardInterrupt:
        report(words("stopped.at_once"))
        return EXIT_STOPPED
    except MachineError as error:  # the disk has been unplugged
        view = DownloadView(state="failed", failure=describe_failure(error))
    if view.failure is not None:
        report(words("failed", reason=error_text(view.failure, words)))
        return EXIT_BAD_INPUT if view.failure.code == "download_endpoint" else EXIT_FAILED
    is_done = view.state == "done"
    report(words("download.done", folder=folders.target) if is_done else words("download.stopped"))
    return EXIT_DONE if is_done else EXIT_STOPPED


def _run(folders: ModelFolders, check: bool, stop: threading.Event, words: Translator) -> DownloadView:
    """Show the progress until it has ended, without a check also the sizes; returns the end."""
    download = Download(folders)
    download.start(check=check)
    with tqdm(disable=None, unit="B", unit_scale=True, file=sys.stderr, dynamic_ncols=True) as bar:
        view = download.view()
        while view.is_running:
            if stop.is_set() and not view.is_stopping:
                download.cancel()
            before, view = view, download.view(view, POLL_SECONDS)
            if view.state == "waiting" and not view.total_bytes:  # nothing came yet: no reason to wait
                download.cancel()
                host = host_of(find_endpoint())
                raise MachineError("download_no_connection", host=host, reason=view.last_error)
            if view.total_bytes and not before.total_bytes and not check:
                sizes = (view.total_bytes, view.needed_bytes, free_bytes(folders.target))
                total, needed, free = map(gigabytes, sizes)
                report(words("licence.title"))
                for text, address in licence_lines(words):
                    report(f"  {text} {address}")
                report(words("download.plan", total=total, needed=needed, folder=folders.target, free=free))
            _show(bar, before, view, words)
    return view


def _show(bar: tqdm, before: DownloadView, view: DownloadView, words: Translator) -> None:
    if view.last_error not in (None, before.last_error):
        report(words("download.waiting", reason=reason_text(view.last_error, words)))
    if bar.disable and view.file not in (None, before.file):
        done, total = gigabytes(view.done_bytes), gigabytes(view.total_bytes)
        report(words("download.at_file", file=view.file, done=done, total=total))
    if view.total_bytes and not bar.total:
        bar.reset(view.total_bytes)
        bar.initial = view.done_bytes  # what was there before is no speed
    bar.n = view.done_bytes
    bar.set_postfix_str(view.file or "", refresh=False)
    bar.refresh()

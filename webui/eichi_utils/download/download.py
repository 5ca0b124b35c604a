"""The models' download as the app sees it: started and stopped here, made in a process of its own.

The files go to plain folders `ORG/NAME/...`, not into the layout of Hugging Face's cache: that needs links,
which Windows gives to few users, and belongs to a library that begins a killed download anew.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffusers_helper.errors import InputError, MachineError

from ..support.failures import Failure, describe_failure
from .model_folders import ModelFolders

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
MODULE = "webui.eichi_utils.download.fetch"
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
DEFAULT_ENDPOINT = "https://huggingface.co"
SHOWN_CHARACTERS = 200
DownloadState = Literal["idle", "asking", "checking", "fetching", "waiting", "done", "stopped", "failed"]


@dataclass(frozen=True)
class DownloadView:
    """A download at one moment.

    Attributes:
        state: `asking` for the list of files; `checking` a file's content on the disk; `waiting` to try
            again after the connection was lost.
        is_stopping: it was asked to stop, and has not ended yet.
        done_bytes, total_bytes: of the whole set, with what was there before. 0 of 0 before it is known.
        needed_bytes: bytes that were missing when it began.
        speed: bytes a second; None while nothing comes or before it is known.
        file: `ORG/NAME/path` of the current file.
        last_error: the reason why the connection was lost, until bytes come again.
    """

    state: DownloadState = "idle"
    is_stopping: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    needed_bytes: int = 0
    speed: float | None = None
    file: str | None = None
    last_error: str | None = None
    failure: Failure | None = None

    @property
    def is_running(self) -> bool:
        return self.state in ("asking", "checking", "fetching", "waiting")

    @property
    def seconds_left(self) -> float | None:
        return (self.total_bytes - self.done_bytes) / self.speed if self.speed else None


class Download:
    """The download of the models. Every method may be called from any thread.

    Args:
        on_end: called whenever a download has ended, in any thread; returns at once.
    """

    def __init__(self, folders: ModelFolders, on_end: Callable[[], None] = lambda: None) -> None:
        self._folders, self._on_end = folders, on_end
        self._changed = threading.Condition()
        self._view = DownloadView()
        self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, check: bool = False) -> bool:
        """Begin, or continue an earlier download; False where this one is running. The view has failures.

        A `check` also reads the files that this app downloaded before, and fetches the damaged ones again.
        """
        with self._changed:
            if self._view.is_running:
                return False
            self._is_stopping = False
            self._show(DownloadView(state="asking"))
            paths = (self._folders.given, self._folders.own, *self._folders.caches)
            arguments = ["check" * check, *((path and path.absolute()) or "" for path in paths)]
            try:
                find_endpoint()  # huggingface_hub cannot even be imported with some that are no address
                self._process = process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, *arguments],
                    cwd=ROOT,
                    env=os.environ | {"HF_HUB_OFFLINE": "0"},  # the app keeps its libraries offline
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    creationflags=NO_WINDOW,
                    start_new_session=True,  # Ctrl-C is for the app alone, which stops it in its own way
                )
                threading.Thread(target=self._follow, args=(process,), name="download", daemon=True).start()
            except (OSError, InputError) as error:
                self._end(DownloadView(state="failed", failure=describe_failure(error)))
            return True

    def cancel(self) -> bool:
        """Ask it to end; what has come is kept. False where nothing is running."""
        with self._changed:
            if not self._view.is_running or self._process is None or self._process.stdin is None:
                return False
            self._process.stdin.close()
            self._is_stopping = True
            self._show(self._view)
            return True

    def view(self, unlike: DownloadView | None = None, timeout: float = 0.0) -> DownloadView:
        """Return the download as it is, after waiting at most `timeout` seconds until it is `unlike` that."""
        with self._changed:
            self._changed.wait_for(lambda: self._view != unlike, timeout)
            return self._view

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Take over the process' reports; its end counts when it is gone, and with it its lock."""
        view = self._view
        with process:
            for line in process.stdout or ():
                if not line.startswith(b"{"):  # a library printed it while it was imported
                    continue
                values = json.loads(line)
                failure = values["failure"] and Failure(**values["failure"])
                view = DownloadView(**values | {"failure": failure})
                if view.is_running:
                    self._show(view)
        if view.is_running and self._is_stopping:
            view = replace(view, state="stopped", speed=None, file=None)
        elif view.is_running:
            error = MachineError("unexpected", reason=f"exit status {process.returncode}", place=MODULE)
            view = replace(view, state="failed", speed=None, file=None, failure=describe_failure(error))
        self._end(view)

    def _end(self, view: DownloadView) -> None:
        self._show(view)
        if view.failure is not None:
            logger.warning("the download failed\n%s", view.failure.details)
        self._on_end()

    def _show(self, view: DownloadView) -> None:
        with self._changed:
            self._view = replace(view, is_stopping=self._is_stopping and view.is_running)
            self._changed.notify_all()


def find_endpoint() -> str:
    """Return the address of the hub: `HF_ENDPOINT`, else Hugging Face's.

    Raises:
        InputError: `HF_ENDPOINT` is no address.
    """
    address = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    try:
        parts = urllib.parse.urlsplit(address)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web or address.split() != [address]:
        raise InputError("download_endpoint", value=address[:SHOWN_CHARACTERS])
    return address.rstrip("/")


def host_of(url: str) -> str:
    """Return the host of an address, with its port and without the name and password that may be in it."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2].lower()

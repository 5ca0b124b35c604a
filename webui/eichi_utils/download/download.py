"""The models' download as the app sees it: started and stopped here, made in a process of its own.

The files go to plain folders `ORG/NAME/...`, not into the layout of Hugging Face's cache: that needs links,
which Windows gives to few users, and belongs to a library that begins a killed download anew.
"""

import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from diffusers_helper.errors import MachineError

from ..support.failures import Failure, describe_failure
from .model_folders import ModelFolders
from .progress import DownloadView

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[3]
MODULE = "webui.eichi_utils.download.process"
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)


class Download:
    """The download of the models. Every method may be called from any thread."""

    def __init__(self, folders: ModelFolders) -> None:
        self._folders = folders
        self._changed = threading.Condition()
        self._view = DownloadView(0)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, check: bool = False) -> bool:
        """Begin, or continue an earlier download; False where this one is running. The view has failures.

        Args:
            check: also read the files that this app downloaded before, and fetch the damaged ones again.
        """
        with self._changed:
            if self._view.is_running:
                return False
            self._show(DownloadView(0, "asking"))
            try:
                self._process = process = self._open_process(check)
            except OSError as error:
                self._show(DownloadView(0, "failed", failure=describe_failure(error)))
                return True
            threading.Thread(target=self._follow, args=(process,), name="download", daemon=True).start()
            return True

    def cancel(self) -> bool:
        """Ask it to end; what has come is kept. False where nothing is running."""
        with self._changed:
            if not self._view.is_running or self._process is None or self._process.stdin is None:
                return False
            self._process.stdin.close()
            self._show(replace(self._view, is_stopping=True))
            return True

    @property
    def version(self) -> int:
        """A number that rises with every change."""
        return self.view().version

    def view(self) -> DownloadView:
        """Return the download as it is at this moment."""
        with self._changed:
            return self._view

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version is another than `version`, at most `timeout` seconds; returns it."""
        with self._changed:
            self._changed.wait_for(lambda: self._view.version != version, timeout)
            return self._view.version

    def _open_process(self, check: bool) -> "subprocess.Popen[bytes]":
        paths = (self._folders.given, self._folders.own, *self._folders.caches)
        request = {"folders": [path and str(path.absolute()) for path in paths], "check": check}
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, json.dumps(request)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=NO_WINDOW,
            start_new_session=True,  # Ctrl-C is for the app alone, which stops the download in its own way
        )

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Take over the process' reports; its end counts when it is gone, and with it its lock."""
        end = None
        with process:
            for line in process.stdout or ():
                values = json.loads(line)
                failure = values["failure"] and Failure(**values["failure"])
                view = DownloadView(**values | {"failure": failure})
                if view.is_running:
                    with self._changed:
                        self._show(replace(view, is_stopping=self._view.is_stopping))
                else:
                    end = view
        with self._changed:
            if end is None:
                end = replace(self._view, state="stopped" if self._view.is_stopping else "failed")
            if end.state == "failed" and end.failure is None:
                error = MachineError("unexpected", reason=f"exit status {process.returncode}", place=MODULE)
                end = replace(end, failure=describe_failure(error))
            self._show(replace(end, is_stopping=False, speed=None, seconds_left=None, file=None))
        if end.failure is not None:
            logger.warning("the download failed\n%s", end.failure.details)

    def _show(self, view: DownloadView) -> None:
        self._view = replace(view, version=self._view.version + 1)
        self._changed.notify_all()

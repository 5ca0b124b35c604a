"""The preflight before a first video: the check of this computer, and the download of the models.

Both are checked at the start and again when a download has ended, in threads; pages see frozen views.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

from .download.download import Download, DownloadView
from .download.model_folders import Inventory, ModelFolders, take_inventory
from .machine.check import CheckOptions, check_lines
from .machine.rules import CheckLine


@dataclass(frozen=True)
class PreflightView:
    """The preflight at one moment. `lines` and `models` are None until they were checked."""

    version: int
    lines: tuple[CheckLine, ...] | None
    models: Inventory | None
    folders: ModelFolders
    download: DownloadView


class Preflight:
    """The check and the download. Every method may be called from any thread."""

    def __init__(self, options: CheckOptions, folders: ModelFolders) -> None:
        self.download = Download(folders)
        self._options = options
        self._lock = threading.Lock()
        self._view = PreflightView(0, None, None, folders, self.download.view())

    @property
    def version(self) -> int:
        """A number that rises with every change."""
        return self.view().version

    @property
    def uses_demo(self) -> bool:
        """True while the demo's models make the videos."""
        return self._options.engine.uses_demo

    def view(self) -> PreflightView:
        """Return the preflight as it is at this moment."""
        with self._lock:
            download = self.download.view()
            return replace(self._view, version=self._view.version + download.version, download=download)

    def check_again(self) -> None:
        """Check everything anew, in a thread; returns at once."""
        threading.Thread(target=self._check, name="preflight", daemon=True).start()

    def start_download(self) -> bool:
        """Begin the download or continue it; everything is checked anew when it has ended."""
        begun = self.download.start()
        if begun:
            threading.Thread(target=self._check_after_download, name="preflight", daemon=True).start()
        return begun

    def _check_after_download(self) -> None:
        view = self.download.view()
        while view.is_running:
            self.download.wait(view.version, timeout=60)
            view = self.download.view()
        self._check()

    def _check(self) -> None:
        self._change(models=take_inventory(self._view.folders))
        self._change(lines=tuple(check_lines(self._options)))

    def _change(self, **values: Any) -> None:
        with self._lock:
            self._view = replace(self._view, version=self._view.version + 1, **values)

"""The preflight before a first video: the check of this computer, and the download of the models.

Both are checked at the start and again when a download has ended, in threads; pages see frozen views.
"""

import threading
from dataclasses import dataclass

from .download.download import Download, DownloadView
from .download.model_folders import Inventory, ModelFolders, take_inventory
from .machine.check import CheckOptions, check_lines
from .machine.rules import CheckLine


@dataclass(frozen=True)
class PreflightView:
    """The preflight at one moment. `lines` and `models` are None until they were checked."""

    lines: tuple[CheckLine, ...] | None
    models: Inventory | None
    folders: ModelFolders
    download: DownloadView


class Preflight:
    """The check and the download. Every method may be called from any thread."""

    def __init__(self, options: CheckOptions, folders: ModelFolders) -> None:
        self.download = Download(folders, on_end=self.check_again)
        self._options = options
        self._folders = folders
        self._models: Inventory | None = None
        self._lines: tuple[CheckLine, ...] | None = None

    @property
    def uses_demo(self) -> bool:
        """True while the demo's models make the videos."""
        return self._options.engine.uses_demo

    def view(self) -> PreflightView:
        """Return the preflight as it is at this moment."""
        return PreflightView(self._lines, self._models, self._folders, self.download.view())

    def check_again(self) -> None:
        """Check everything anew, in a thread; returns at once."""
        threading.Thread(target=self._check, name="preflight", daemon=True).start()

    def _check(self) -> None:
        self._models = take_inventory(self._folders)
        self._lines = tuple(check_lines(self._options))

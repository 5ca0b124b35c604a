"""The preflight before a first video: the check of this computer, and the download of the models.

Both are checked at the start and again when a download has ended, in threads; pages see frozen views.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusers_helper.public import delete_outdated

from .download.download import Download, DownloadView
from .download.model_folders import Inventory, ModelFolders, take_inventory
from .engine_options import EngineOptions
from .machine.check import check_lines
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

    def __init__(self, engine: Callable[[], EngineOptions], output: Callable[[], Path]) -> None:
        self._engine, self._output, self._folders = engine, output, engine().folders
        self.download = Download(self._folders, on_end=self.check_again)
        self._models: Inventory | None = None
        self._lines: tuple[CheckLine, ...] | None = None

    def view(self) -> PreflightView:
        """Return the preflight as it is at this moment."""
        return PreflightView(self._lines, self._models, self._folders, self.download.view())

    def check_again(self) -> None:
        """Check everything anew, in a thread; returns at once."""
        threading.Thread(target=self._check, name="preflight", daemon=True).start()

    def delete_outdated(self) -> bool:
        """Delete the 8-bit weights of an earlier version, and check again.

        Raises:
            InputError: other ones are being made there.
            MachineError: a file cannot be read or deleted.
        """
        try:
            for found in self._engine().find_outdated():
                delete_outdated(found.folder)
        finally:
            self._check()
        return True

    def _check(self) -> None:
        self._models = take_inventory(self._folders)
        self._lines = tuple(check_lines(self._engine(), self._output()))

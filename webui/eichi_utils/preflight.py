"""What has to be right before a first video: the check of this computer, and the download of the models.

Looks once at the start and again when a download has ended, in threads of its own; pages watch frozen views.
Knows no page and no torch.
"""

import logging
import threading
from dataclasses import dataclass

from .download.download import Download, DownloadView
from .download.model_folders import Inventory, ModelFolders, take_inventory
from .machine.check import CheckOptions, check_lines
from .machine.rules import CheckLine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreflightView:
    """The setup at one moment. `lines` and `models` are None until they were looked at."""

    version: int
    lines: tuple[CheckLine, ...] | None
    models: Inventory | None
    places: ModelFolders
    download: DownloadView


class Preflight:
    """The check and the download. Every method may be called from any thread."""

    def __init__(self, options: CheckOptions, places: ModelFolders) -> None:
        self.download = Download(places)
        self._options = options
        self._places = places
        self._lock = threading.Lock()
        self._looks = 0
        self._lines: tuple[CheckLine, ...] | None = None
        self._models: Inventory | None = None

    @property
    def version(self) -> int:
        """Rises with every change."""
        with self._lock:
            return self._looks + self.download.version

    @property
    def uses_demo(self) -> bool:
        """Whether the demo's models make the videos as things stand."""
        return self._options.engine.uses_demo

    def view(self) -> PreflightView:
        """The setup as it is at this moment."""
        with self._lock:
            download = self.download.view()
            version = self._looks + download.version
            return PreflightView(version, self._lines, self._models, self._places, download)

    def look_again(self) -> None:
        """Check everything anew, in a thread; returns at once."""
        threading.Thread(target=self._look, name="setup", daemon=True).start()

    def start_download(self) -> bool:
        """Begin the download or go on with it; everything is checked anew when it has ended."""
        begun = self.download.start()
        if begun:
            threading.Thread(target=self._look_after_download, name="setup", daemon=True).start()
        return begun

    def _look_after_download(self) -> None:
        version = self.download.version
        while self.download.view().is_running:
            version = self.download.wait(version, timeout=60)
        self._look()

    def _look(self) -> None:
        models = take_inventory(self._places)
        with self._lock:
            self._models = models
            self._looks += 1
        lines = tuple(check_lines(self._options))
        with self._lock:
            self._lines = lines
            self._looks += 1

"""What all parts of the app share while it runs: the queue, the stores, the folders. Knows no widget."""

import logging
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError
from diffusers_helper.events import Notice

from .demo import RESOLUTION
from .form import FIELDS
from .jobs.queue import JobQueue
from .jobs.speed_history import SpeedBook
from .output import resolve_output
from .preflight import Preflight
from .settings.presets import PresetStore
from .settings.settings import Field, SettingsStore
from .text.translations import LANGUAGES, Translator

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT = "outputs"
SETTINGS_FIELDS: dict[str, Field] = {
    **FIELDS,
    "language": Field(None, lambda value: value is None or value in LANGUAGES),
    "sound": Field(True, lambda value: isinstance(value, bool)),
    "output_folder": Field(DEFAULT_OUTPUT, lambda value: isinstance(value, str)),
    "machine": Field(None, lambda value: value is None or isinstance(value, str)),
}
"""What comes back at the next start. `machine` is the card and the models of the last job."""


@dataclass(frozen=True)
class AppState:
    """The app's shared things, each of them safe to use from any thread.

    `home` is the folder of everything the app writes (`webui`); `given_output` is the output folder of the
    command line, which wins over the page's. `demo` is `--demo`.
    """

    home: Path
    queue: JobQueue
    settings: SettingsStore
    presets: PresetStore
    speed: SpeedBook
    setup: Preflight
    language: str
    given_output: Path | None = None
    demo: bool = False
    server_id: str = field(default_factory=lambda: secrets.token_hex(8))
    closing: threading.Event = field(default_factory=threading.Event)
    _told: list[Notice] = field(default_factory=list)

    @property
    def uploads(self) -> Path:
        """Where uploaded pictures lie until their job has copied them."""
        return self.home / "temp" / "uploads"

    @property
    def sound(self) -> bool:
        return bool(self.settings.load()["sound"])

    @property
    def machine_key(self) -> str | None:
        """The card and models that jobs run on, as far as a job has told; None before the first one ever."""
        known = self.settings.load()["machine"]
        return known if isinstance(known, str) else None

    @property
    def forced_resolution(self) -> int | None:
        """The demo's, while its models stand in for real ones that are not there."""
        return RESOLUTION if not self.demo and self.setup.uses_demo else None

    def take_notices(self) -> list[Notice]:
        """What has to be said about files that could not be read; each only once."""
        known = [*self.queue.notices, *self.settings.notices, *self.presets.notices, *self.speed.notices]
        new = [notice for notice in known if notice not in self._told]
        self._told.extend(new)
        return new

    def remember(self, **settings: Any) -> None:
        """Keep settings where that is possible: one that cannot be written spoils nothing else."""
        usable = {key: value for key, value in settings.items() if SETTINGS_FIELDS[key].takes(value)}
        try:
            self.settings.update(**usable)
        except EngineError:
            logger.warning("the settings cannot be written", exc_info=True)

    def translator(self, language: object) -> Translator:
        """The words of a page's language, or of the app's where that is none."""
        return Translator(language if isinstance(language, str) and language in LANGUAGES else self.language)

    def output_folder(self, name: str) -> Path:
        """The folder for videos that the page names.

        Raises:
            InputError: the name leads out of the app's folder, or is no name.
        """
        return self.given_output if self.given_output is not None else resolve_output(name, self.home)

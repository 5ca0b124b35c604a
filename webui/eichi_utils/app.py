"""The things that all parts of the app share while it runs: queue, stores, folders."""

import contextlib
import logging
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError
from diffusers_helper.events import Notice, Planned
from diffusers_helper.request import GenerationRequest

from .engine_options import DEMO_RESOLUTION, EngineOptions
from .form import FIELDS
from .instance import only_app
from .jobs.eta import TYPICAL, TYPICAL_DEMO, Eta, SpeedHistory, job_parts
from .jobs.queue import JobQueue
from .jobs.runner import JobRunner, logged
from .jobs.store import delete_stale
from .output import resolve_output
from .preflight import Preflight
from .settings.presets import PresetStore
from .settings.settings import Field, SettingsStore
from .text.translations import LANGUAGES, Translator, system_language

logger = logging.getLogger(__name__)

DEFAULT_OUTPUT = "outputs"
STARTERS = ("dance", "turn", "wind", "camera")
"""The keys of the prompts to begin with."""
SETTINGS_FIELDS: dict[str, Field] = {
    **FIELDS,
    "language": Field(None, lambda value: value is None or value in LANGUAGES),
    "sound": Field(True, lambda value: isinstance(value, bool)),
    "output_folder": Field(DEFAULT_OUTPUT, lambda value: isinstance(value, str)),
    "machine": Field(None, lambda value: value is None or isinstance(value, str)),
}
"""The settings that come back at the next start. `machine` is the GPU and the models of the last job, None
before the first one ever."""


@dataclass(frozen=True)
class PageOptions:
    """The page's part of the command line. `home` is the folder of everything that the app writes;
    `output` None leaves the output folder to the page, `language` None to the settings and the system; with
    `demo`, the engine has the demo's models."""

    server: str
    port: int
    share: bool
    in_browser: bool
    language: str | None
    login: tuple[str, str] | None
    home: Path
    output: Path | None
    engine: EngineOptions
    demo: bool = False


@dataclass(frozen=True)
class AppState:
    """The app's shared things, each of them safe to use from any thread."""

    options: PageOptions
    queue: JobQueue
    settings: SettingsStore
    presets: PresetStore
    speed: SpeedHistory
    preflight: Preflight
    language: str
    server_id: str = field(default_factory=lambda: secrets.token_hex(8))
    closing: threading.Event = field(default_factory=threading.Event)
    _reported: list[Notice] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The folder of everything that the app writes."""
        return self.options.home

    @property
    def uploads(self) -> Path:
        """The folder of uploaded pictures, until their job has copied them."""
        return self.home / "temp" / "uploads"

    @property
    def forced_resolution(self) -> int | None:
        """The demo's, while its models stand in for real ones that are not there."""
        return DEMO_RESOLUTION if not self.options.demo and self.options.engine.uses_demo else None

    def take_notices(self) -> list[Notice]:
        """Return the notices about files that could not be read, each only once."""
        known = [*self.queue.notices, *self.settings.notices, *self.presets.notices, *self.speed.notices]
        new = [notice for notice in known if notice not in self._reported]
        self._reported.extend(new)
        return new

    def remember(self, **settings: Any) -> None:
        """Keep settings where that is possible: one that cannot be written spoils nothing else."""
        try:
            self.settings.update(**settings)
        except EngineError:
            logger.warning("the settings cannot be written", exc_info=True)

    def translator(self, language: object) -> Translator:
        """Return the texts in a page's language, or in the app's where that is none."""
        return Translator(language if isinstance(language, str) and language in LANGUAGES else self.language)

    def output_folder(self, name: str) -> Path:
        """Return the folder for videos: the command line's, else the one that the page names.

        Raises:
            InputError: the name leads out of the app's folder, or is no name.
        """
        return self.options.output or resolve_output(name, self.home)


@contextlib.contextmanager
def open_app(options: PageOptions) -> Iterator[AppState]:
    """Opens the app's shared things, while no other app has the folder. Its queue is paused.

    Raises:
        MachineError: another app has it; a folder cannot be written.
    """
    home = options.home
    with only_app(home) as is_locked:
        _delete_uploads(home)  # of a run that was killed
        delete_stale(home / "temp")
        settings = open_settings(options)
        if not is_locked:
            settings.notices.append(Notice("no_file_locks", {"path": str(home)}))
        language = options.language or settings.load()["language"] or system_language()
        words = Translator(language)
        starters = [(words(f"preset.{key}"), words(f"preset.{key}_prompt")) for key in STARTERS]
        runner = JobRunner(options.engine, partial_videos=True)
        # the demo's jobs are apart: no models are to make what was begun with others
        jobs = home / "temp" / ("demo_jobs" if options.demo else "jobs")
        app = AppState(
            options=options,
            queue=JobQueue(logged(runner), jobs, lambda *job: _start_eta(app, runner, *job), paused=True),
            settings=settings,
            presets=PresetStore(home / "presets" / "prompt_presets.json", starters),
            speed=SpeedHistory(home / "settings" / "speed.json"),
            preflight=Preflight(options.engine, options.output or home / DEFAULT_OUTPUT),
            language=language,
        )
        app.preflight.check_again()
        if options.language is not None:
            app.remember(language=options.language)
        if (startup := app.presets.startup_name()) is not None:
            app.remember(prompt=app.presets.prompt_of(startup))
        try:
            yield app
        finally:
            _delete_uploads(home)


def open_settings(options: PageOptions) -> SettingsStore:
    """Opens the settings; those of `--demo` are apart: its resolution is not the real models'."""
    name, fields = "app", SETTINGS_FIELDS
    if options.demo:
        name, resolution = "demo", Field(DEMO_RESOLUTION, fields["resolution"].check)
        fields = fields | {"resolution": resolution}
    return SettingsStore(options.home / "settings" / f"{name}_settings.json", fields)


def _start_eta(app: AppState, runner: JobRunner, request: GenerationRequest, planned: Planned) -> Eta:
    """Return the remaining time of a job that begins: the machine's name is known from now on."""
    machine = runner.machine_key or ""
    if machine != app.settings.load()["machine"]:
        app.remember(machine=machine)
    parts = job_parts(request, planned.plan, planned.height, planned.width)
    typical = TYPICAL_DEMO if app.options.engine.uses_demo else TYPICAL
    known = app.speed.speeds.get(machine, typical)
    return Eta(parts, known, lambda speed: app.speed.learn(machine, speed))


def _delete_uploads(home: Path) -> None:
    """Delete the user's pictures: jobs have copies, and videos hold theirs."""
    shutil.rmtree(home / "temp" / "uploads", ignore_errors=True)

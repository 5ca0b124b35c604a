"""The things that all parts of the app share while it runs: queue, stores, folders."""

import contextlib
import json
import logging
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError
from diffusers_helper.events import Notice, Planned
from diffusers_helper.request import GenerationRequest

from .engine_options import DEMO_RESOLUTION, EngineOptions
from .form import FIELDS, renew_settings
from .instance import is_loopback, only_app, place_of, running_address
from .jobs.eta import TYPICAL, TYPICAL_DEMO, Eta, SpeedHistory, job_parts
from .jobs.queue import JobQueue
from .jobs.runner import JobRunner, logged
from .jobs.store import delete_stale
from .output import DEFAULT_OUTPUT, resolve_output, whole_path
from .preflight import Preflight
from .recent_videos import RecentVideos
from .settings.presets import PresetStore
from .settings.settings import Field, SettingsStore
from .support.failures import Failure, versions
from .terminal import report
from .text.browser_language import browser_language
from .text.error_text import error_text
from .text.translations import LANGUAGES, Translator, system_language
from .uploads.cleanup import UploadCleaner, delete_uploads, touch, uploads_folder, uploads_of

logger = logging.getLogger(__name__)

OWN = ("settings", "presets", "temp", "logs")
"""The folders in which only the app that has them writes."""
WATCH_SECONDS = 2.0
"""Seconds between two looks at the app's folder."""
STARTERS = ("dance", "turn", "wind", "camera")
"""The keys of the prompts to begin with."""
MAX_FORM = 1_000_000
"""Characters of a form that is remembered."""
SETTINGS_FIELDS: dict[str, Field] = {
    **FIELDS,
    "language": Field(None, lambda value: value is None or value in LANGUAGES),
    "sound": Field(True, lambda value: isinstance(value, bool)),
    "eight_bit": Field(False, lambda value: isinstance(value, bool)),
    "output_folder": Field(DEFAULT_OUTPUT, lambda value: isinstance(value, str)),
    "machine": Field(None, lambda value: value is None or isinstance(value, str)),
    "form": Field("", lambda value: isinstance(value, str) and len(value) < MAX_FORM),
}
"""The settings that come back at the next start. `form` is what the form held beside them (JSON); `machine`
is the GPU and the models of the last job, None before the first one ever; `eight_bit` is the choice of the
fast weights."""


@dataclass(frozen=True)
class PageOptions:
    """The page's part of the command line. `home` is the folder of everything that the app writes;
    `root_path` is where a proxy in front of the app has it, empty for its root;
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
    root_path: str = ""
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
    recent: RecentVideos
    language: str
    server_id: str = field(default_factory=lambda: secrets.token_hex(8))
    closing: threading.Event = field(default_factory=threading.Event)
    moved: threading.Event = field(default_factory=threading.Event)
    """Set while the app's folder is not where it was."""
    has_open_pages: threading.Event = field(default_factory=threading.Event)
    """Set at the end where pages wait for the next start, and will show their pictures then."""
    has_new_form: threading.Event = field(default_factory=threading.Event)
    """Set once somebody has changed a form in this run."""
    _reported: list[Notice] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The folder of everything that the app writes."""
        return self.options.home

    @property
    def uploads(self) -> Path:
        """The folder of uploaded pictures, until their job has copied them."""
        return uploads_folder(self.home)

    @property
    def forced_resolution(self) -> int | None:
        """The demo's, while its models stand in for real ones that are not there."""
        return DEMO_RESOLUTION if not self.options.demo and self.options.engine.uses_demo else None

    @property
    def trouble(self) -> Failure | None:
        """The failure that keeps the whole app from going on until it is started again."""
        if self.queue.has_stopped:
            return Failure("jobs_stopped", {}, versions())
        return Failure("home_moved", {"path": str(self.home)}, versions()) if self.moved.is_set() else None

    @property
    def is_private(self) -> bool:
        """True where every page is on this computer, so that it may use its desktop and all its disks.

        A login, or an address that a proxy has in front of this one, is for people elsewhere.
        """
        options = self.options
        is_public = options.share or options.login is not None or options.root_path.strip("/")
        return is_loopback(options.server) and not is_public

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

    @property
    def form_before(self) -> str:
        """The form of the run before (see SETTINGS_FIELDS), until somebody changes one in this run."""
        return "" if self.has_new_form.is_set() else str(self.settings.load()["form"])

    def keep_form(self, form: str) -> None:
        """Remember what a form holds beside the settings (JSON), for the next start."""
        is_empty = True
        self.has_new_form.set()
        with contextlib.suppress(ValueError, AttributeError, RecursionError):  # a program's
            held = json.loads(form)
            is_empty = not any(held.get(key) for key in ("start", "end", "prompts", "hidden"))
        self.remember(form="" if is_empty else form)

    def page_translator(self) -> Translator:
        """Return the texts of a page that is opened: as somebody chose, else as its browser asks."""
        return self.translator(
            self.settings.load()["language"] or self.options.language or browser_language()
        )

    def translator(self, language: object) -> Translator:
        """Return the texts in a page's language, or in the app's where that is none."""
        return Translator(language if isinstance(language, str) and language in LANGUAGES else self.language)

    @property
    def chosen_output(self) -> Path:
        """The folder for videos that the settings name; raises as `output_folder` does."""
        return self.output_folder(self.settings.load()["output_folder"])

    @property
    def checked_output(self) -> Path:
        """The chosen folder for videos, or the usual one where that cannot be used."""
        try:
            return self.chosen_output
        except EngineError:
            return self.home / DEFAULT_OUTPUT

    def output_folder(self, name: str) -> Path:
        """Return the folder for videos: the command line's, else the one that the page names.

        Pages on this computer may name any. One elsewhere stays inside the app's folder, or takes the folder
        that was chosen here.

        Raises:
            InputError: the folder may not be used, or `name` is none.
            MachineError: its drive is not there.
        """
        if self.options.output is not None:
            return self.options.output
        if name == self.settings.load()["output_folder"] and (path := whole_path(name)) is not None:
            # it was tried when it was chosen, and a drive that is away would keep the page waiting
            return path
        return resolve_output(name, self.home, anywhere=self.is_private)


@contextlib.contextmanager
def open_app(options: PageOptions) -> Iterator[AppState]:
    """Open the app's shared things, while no other app has the folder. Its queue is paused.

    Raises:
        MachineError: another app has it; a folder cannot be written.
    """
    home = options.home
    with only_app(home) as is_locked:
        settings, uploads = open_settings(options), uploads_folder(home)
        touch(uploads_of(settings.load()["form"], uploads))
        UploadCleaner(uploads).tidy()  # pages that waited for this start show the rest
        delete_stale(home / "temp")
        _delete_parts(home, options.engine.cache)
        if not is_locked:
            settings.notices.append(Notice("no_file_locks", {"path": str(home)}))
        language = options.language or settings.load()["language"] or system_language()
        words = Translator(language)
        starters = [(words(f"preset.{key}"), words(f"preset.{key}_prompt")) for key in STARTERS]
        runner = JobRunner(options.engine, partial_videos=True)

        def chosen_engine() -> EngineOptions:
            return replace(options.engine, eight_bit=settings.load()["eight_bit"])

        # the demo's jobs are apart: no models are to make what was begun with others
        jobs = home / "temp" / ("demo_jobs" if options.demo else "jobs")
        output = options.output or home / DEFAULT_OUTPUT
        app = AppState(
            options=options,
            queue=JobQueue(
                logged(runner),
                jobs,
                lambda *job: _start_eta(app, runner, *job),
                paused=True,
                home=home,
                output=output,
            ),
            settings=settings,
            presets=PresetStore(home / "presets" / "prompt_presets.json", starters),
            speed=SpeedHistory(home / "settings" / "speed.json"),
            preflight=Preflight(chosen_engine, lambda: app.checked_output),
            recent=RecentVideos(
                lambda: app.chosen_output, home / "temp" / "recent", lambda: app.queue.view().videos
            ),
            language=language,
        )
        threading.Thread(target=_watch_home, args=(app, place_of(home)), name="home", daemon=True).start()
        if options.language is not None:
            app.remember(language=options.language)
        if options.engine.eight_bit:
            app.remember(eight_bit=True)
        app.preflight.check_again()
        app.recent.start(app.closing)
        if (startup := app.presets.startup_name()) is not None:
            app.remember(prompt=app.presets.prompt_of(startup))
        try:
            yield app
        finally:
            if not app.has_open_pages.is_set():
                # jobs have copies of their pictures, and videos hold theirs
                delete_uploads(app.uploads, uploads_of(settings.load()["form"], app.uploads))


def _watch_home(app: AppState, known: tuple[int, int] | None) -> None:
    """Note whether the app's folder is where it was at the start, until the app ends.

    One that the log has made anew holds no address; on some network drives a folder's number changes.
    """
    while not app.closing.wait(WATCH_SECONDS):
        if place_of(app.home) == known or running_address(app.home) is not None:
            app.moved.clear()
        elif not app.moved.is_set():
            app.moved.set()
            logger.warning("the app's folder is not there any more")
            if (trouble := app.trouble) is not None:
                report(error_text(trouble, app.translator(None)))


def open_settings(options: PageOptions) -> SettingsStore:
    """Open the settings; those of `--demo` are apart: its resolution is not the real models'."""
    name, fields = "app", SETTINGS_FIELDS
    if options.demo:
        name, resolution = "demo", Field(DEMO_RESOLUTION, fields["resolution"].check)
        fields = fields | {"resolution": resolution}
    path = options.home / "settings" / f"{name}_settings.json"
    return SettingsStore(path, fields, renew_settings)


def _start_eta(app: AppState, runner: JobRunner, request: GenerationRequest, planned: Planned) -> Eta:
    """Return the remaining time of a job that begins: the machine's name is known from now on."""
    machine = runner.machine_key or ""
    if machine != app.settings.load()["machine"]:
        app.remember(machine=machine)
    parts = job_parts(request, planned.plan, planned.height, planned.width)
    typical = TYPICAL_DEMO if app.options.engine.uses_demo else TYPICAL
    known = app.speed.find(machine) or typical
    return Eta(parts, known, lambda speed: app.speed.learn(machine, speed))


def _delete_parts(home: Path, cache: Path) -> None:
    """Delete parts of files that a killed run has left; those of `--headless` and downloads are resumed."""
    patterns = [
        (home / "temp", "*jobs/**/*.part"),
        *((home / name, "*.part") for name in OWN),
        (cache, "*.part"),
    ]
    for folder, pattern in patterns:
        with contextlib.suppress(OSError):  # a folder that cannot be read
            for part in [*folder.glob(pattern)]:
                with contextlib.suppress(OSError):
                    part.unlink()

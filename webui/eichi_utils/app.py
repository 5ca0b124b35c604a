"""Making what the app shares, and putting it away: one app in one folder at a time."""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Planned
from diffusers_helper.request import GenerationRequest

from .app_state import DEFAULT_OUTPUT, SETTINGS_FIELDS, AppState
from .demo import SETTINGS_FILE, demo_fields
from .jobs.headless_folders import give_up_old
from .jobs.log import logged
from .jobs.queue import Clock, JobQueue
from .jobs.runner import JobRunner
from .jobs.speed_history import SpeedBook
from .machine.check import CheckOptions
from .page.estimate import job_work
from .preflight import Preflight
from .settings.presets import PresetStore
from .settings.settings import SettingsStore
from .text.translations import Translator, system_language

if TYPE_CHECKING:
    from .server.server import PageOptions

logger = logging.getLogger(__name__)

ADDRESS = "app.json"
STARTERS = ("dance", "turn", "wind", "camera")
"""Prompts to begin with, by their keys."""


@contextlib.contextmanager
def open_app(options: "PageOptions") -> Iterator[AppState]:
    """The app's shared things, while no other app has the same folder. Its queue waits until it is let go.

    Raises:
        MachineError: another app has it; a folder cannot be written.
    """
    home = options.home
    with _only_app(home):
        _delete_uploads(home)  # what a run that was killed has left
        give_up_old(home / "temp")
        settings = _settings(options)
        language = options.language or settings.load()["language"] or system_language()
        words = Translator(language)
        starters = [(words(f"preset.{key}"), words(f"preset.{key}_prompt")) for key in STARTERS]
        presets = PresetStore(home / "presets" / "prompt_presets.json", starters)
        speed = SpeedBook(home / "settings" / "speed.json")
        runner = JobRunner(options.engine, progress_videos=True)
        # the demo's jobs are apart: no models are to make what was begun with others
        jobs = home / "temp" / ("demo_jobs" if options.demo else "jobs")
        queue = JobQueue(logged(runner), jobs, lambda *job: _clock(app, runner, *job), is_held=True)
        app = AppState(
            home=home,
            queue=queue,
            settings=settings,
            presets=presets,
            speed=speed,
            setup=_setup(options),
            language=language,
            given_output=options.output,
            demo=options.demo,
        )
        if options.language is not None:
            app.remember(language=options.language)
        _take_startup_prompt(app)
        try:
            yield app
        finally:
            _delete_uploads(home)


def _settings(options: "PageOptions") -> SettingsStore:
    folder = options.home / "settings"
    if options.demo:
        return SettingsStore(folder / SETTINGS_FILE, demo_fields(SETTINGS_FIELDS))
    return SettingsStore(folder / "app_settings.json", SETTINGS_FIELDS)


def _setup(options: "PageOptions") -> Preflight:
    """The check and the download, already looking."""
    output = options.output or options.home / DEFAULT_OUTPUT
    setup = Preflight(CheckOptions(options.engine, output), options.engine.places)
    setup.look_again()
    return setup


def _clock(app: AppState, runner: JobRunner, request: GenerationRequest, planned: Planned) -> Clock:
    """The clock of a job that begins: the speed of this machine is known from now on."""
    if runner.machine_key != app.machine_key:
        app.remember(machine=runner.machine_key)
    return app.speed.clock(
        runner.machine_key, job_work(request, planned.plan, (planned.height, planned.width))
    )


def _delete_uploads(home: Path) -> None:
    """The user's pictures do not stay: jobs have copies of their own, and videos hold theirs."""
    shutil.rmtree(home / "temp" / "uploads", ignore_errors=True)


def _take_startup_prompt(app: AppState) -> None:
    """The prompt that is marked for it stands on the page at every start."""
    prompt = app.presets.startup_prompt()
    if prompt is not None:
        app.remember(prompt=prompt)


@contextlib.contextmanager
def _only_app(home: Path) -> Iterator[None]:
    folder = home / "temp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "app.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise MachineError("app_runs_already", url=running_address(home) or "?") from error
    except OSError as error:
        raise MachineError("cannot_write", path=str(folder), reason=error.strerror or str(error)) from error
    try:
        (folder / ADDRESS).unlink(missing_ok=True)  # of an app that has ended
        yield
    finally:
        lock.release()


def remember_address(home: Path, url: str) -> None:
    """Leave word for a second start where this app can be found."""
    with contextlib.suppress(OSError):
        (home / "temp" / ADDRESS).write_text(json.dumps({"url": url}), "utf-8")


def running_address(home: Path) -> str | None:
    """Where the app of this folder said that it can be found; None where it has not said so yet."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((home / "temp" / ADDRESS).read_text("utf-8"))["url"])
    return None

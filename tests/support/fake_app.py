"""The app without a page and without models: its stores in a fresh folder, its jobs faked by `run`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from diffusers_helper.request import GenerationRequest
from tests.support.app import wait_until
from tests.support.page_options import options
from tests.support.queue import SOON
from webui.eichi_utils.app import SETTINGS_FIELDS, AppState
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.jobs.eta import SpeedHistory
from webui.eichi_utils.jobs.job import Job, Run
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.preflight import Preflight
from webui.eichi_utils.recent_videos import RecentVideos
from webui.eichi_utils.settings.presets import PresetStore
from webui.eichi_utils.settings.settings import SettingsStore


@contextlib.contextmanager
def fake_app(home: Path, run: Run, *, demo: bool = False, **values: Any) -> Iterator[AppState]:
    """An app in English whose jobs `run` makes; leaving the block ends it."""
    queue = JobQueue(run, home / "temp" / "jobs")
    engine = EngineOptions(home / "models", home / "cache", "cpu", None, home / "hf_download")
    plain: dict[str, Any] = {
        "options": options(home, engine=engine, demo=demo),
        "queue": queue,
        "settings": SettingsStore(home / "settings" / "app_settings.json", SETTINGS_FIELDS),
        "presets": PresetStore(home / "presets" / "prompt_presets.json"),
        "speed": SpeedHistory(home / "settings" / "speed.json"),
        "preflight": Preflight(lambda: engine, lambda: home / "outputs"),
        "recent": RecentVideos(
            lambda: home / "outputs", home / "temp" / "recent", lambda: queue.view().videos
        ),
        "language": "en",
    }
    app = AppState(**plain | values)
    try:
        yield app
    finally:
        app.closing.set()
        assert queue.close(SOON)


def add_job(app: AppState, **values: Any) -> str:
    """Queue a job with a small red picture; returns its id."""
    picture = app.home / "red.png"
    if not picture.is_file():
        Image.new("RGB", (32, 32), "red").save(picture)
    request = GenerationRequest(**{"start_image": str(picture), "prompt": "A cat.", "seed": 7} | values)
    return app.queue.add(request, app.home / "outputs")


def ended(app: AppState, job_id: str) -> Job:
    """The job when it is over."""
    job: Job = wait_until(lambda: (found := app.queue.find(job_id)) and found.ended and found, "the job ends")
    return job

"""The runner: tiny models, real videos, through the queue as the page does it; and the log of jobs."""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Event, Finished, Notice, Planned, SectionDone, StageStarted, Stopped
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import count_frames
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest, Keyframe
from tests.support.pictures import PICTURE
from tests.support.queue import LONG, Runner, wait_until
from tests.support.tiny import MODELS, make_request
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.runner import JobRunner, logged


def make_runner(tmp_path: Path, models: Path | None = MODELS, **options: bool) -> JobRunner:
    return JobRunner(EngineOptions(models, tmp_path / "cache", "cpu", None), **options)


def run(
    runner: JobRunner, folder: Path, name: str = "a", *, seconds: float = 0.5, stop: bool = False
) -> list[Event]:
    asked = threading.Event()
    if stop:
        asked.set()
    request = make_request(seconds=seconds)
    return list(runner(JobSpec(name, name, folder / "out", request, folder / "work"), asked))


def test_a_queued_job_becomes_the_video_that_its_view_names(tmp_path):
    queue = JobQueue(make_runner(tmp_path, partial_videos=True), tmp_path / "temp")
    job_id = queue.add(make_request(seconds=2), tmp_path / "out")
    parts: list[Path] = []
    wait_until(
        queue,
        lambda view: (
            parts.extend(job.video for job in (view.running,) if job and job.video and job.video not in parts)
            or view.ended
        ),
        LONG,
    )
    job = queue.find(job_id)
    assert job is not None
    assert (job.state, job.failure, job.preview_number) == ("done", None, 0)
    assert job.video == tmp_path / "out" / f"{job.name}.mp4"
    assert count_frames(job.video) == job.frames == job.progress.frames == 73
    assert (job.progress.width, job.progress.height, job.progress.sections) == (96, 64, 2)
    assert parts, "the video so far was shown"
    assert all(part.is_relative_to(tmp_path / "temp") for part in parts if part != job.video)
    made_again = load_request(job.video)
    assert (made_again.prompt, made_again.seed) == (job.request.prompt, job.request.seed)
    assert queue.close(LONG)
    assert list((tmp_path / "temp").iterdir()) == []


def test_the_models_are_kept_while_their_files_are_the_same(tmp_path):
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    runner = make_runner(tmp_path, models)
    engines = []
    for name in "abc":
        if name == "c":
            os.utime(next(models.rglob("*.safetensors")), (1, 1))
        assert isinstance(run(runner, tmp_path, name, stop=True)[-1], Stopped)
        engines.append(runner._engine)
    assert engines[0] is engines[1]
    assert engines[1] is not engines[2]
    shutil.rmtree(models)
    with pytest.raises(InputError, match="models_folder_missing"):
        run(runner, tmp_path, "d")


def test_the_machine_has_a_name_after_the_first_job(tmp_path):
    runner = make_runner(tmp_path)
    assert runner.machine_key is None
    run(runner, tmp_path, stop=True)
    key = runner.machine_key
    assert key is not None
    assert key.startswith("CPU ")
    assert str(MODELS) in key
    limited = JobRunner(EngineOptions(MODELS, tmp_path / "cache", "cpu", 4.0))
    run(limited, tmp_path, stop=True)
    assert limited.machine_key not in (None, key), "a limit makes it another machine"


@pytest.mark.parametrize("wanted", [True, False])
def test_partial_videos_and_latents_are_written_only_on_request(tmp_path, wanted):
    runner = make_runner(tmp_path, partial_videos=wanted, save_latents=wanted)
    sections = [event for event in run(runner, tmp_path, seconds=2) if isinstance(event, SectionDone)]
    assert [event.video is not None for event in sections] == [wanted, False]
    assert (tmp_path / "out" / "a.safetensors").exists() == wanted


# -- the log -----------------------------------------------------------------------------------------

REQUEST = GenerationRequest(
    start_image=to_data_uri(PICTURE),
    end_image="/home/mia/private.png",
    prompt="A secret cat.",
    negative_prompt="No dog.",
    seed=7,
    keyframes=(Keyframe(0, "/home/mia/other.png", "It runs."),),
)
SPEC = JobSpec("0123456789abcdef", "cat", Path("/videos"), REQUEST, Path("/work"))
EVENTS: list[Event] = [
    Planned(make_plan(REQUEST), 96, 64, 7),
    StageStarted("prompt"),
    StageStarted("sampling", 0),
    Notice("prompt_too_long", {"prompt": "A secret", "tokens": 3}),
    SectionDone(0, 1, 37),
    Finished(Path("/videos/cat.mp4"), 37, 1.23, 96, 64, 5.0),
]


def test_events_pass_unchanged_and_the_log_has_neither_pictures_nor_texts(caplog):
    caplog.set_level(logging.INFO, "webui")
    assert list(logged(Runner(lambda _: EVENTS))(SPEC, threading.Event())) == EVENTS
    for text in ("37 frames, 96x64", "begins: prompt", "sampling of section 0", "{'tokens': 3}", "cat.mp4"):
        assert text in caplog.text
    for private in ("secret", "dog", "runs", "data:", "private.png", "other.png"):
        assert private not in caplog.text
    assert '"seed": 7' in caplog.messages[0]
    assert "job cat done after" in caplog.messages[-1]
    assert caplog.records[0].private == ["A secret cat.", "No dog.", "It runs."]


@pytest.mark.parametrize(
    ("end", "logged_as"),
    [(Stopped(None, 0, 1), "cat stopped after"), (MachineError("disk_full"), "cat failed (MachineE")],
)
def test_a_jobs_end_is_logged(caplog, end, logged_as):
    caplog.set_level(logging.INFO, "webui")
    with contextlib.suppress(MachineError):
        list(logged(Runner(lambda _: [EVENTS[0], end]))(SPEC, threading.Event()))
    assert logged_as in caplog.messages[-1]


def test_an_abandoned_job_cleans_up_at_once(caplog):
    caplog.set_level(logging.INFO, "webui")
    cleaned = []

    def run(*_: object) -> Generator[Event, None, None]:
        try:
            yield from EVENTS
        finally:
            cleaned.append(True)

    events = logged(run)(SPEC, threading.Event())
    next(events)
    events.close()
    assert cleaned == [True]
    assert "cat was abandoned after" in caplog.messages[-1]

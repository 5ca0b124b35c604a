"""Processes that are killed (`kill -9`) in the middle of a video: the next run finishes it, to the byte."""

import json
import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_helper.media.video import read_frames
from tests.support import preloaded_command as preloaded
from tests.support.tiny import MODELS, START

if sys.platform == "win32":
    pytest.skip("Windows cannot fork", allow_module_level=True)

KILLS = 20
REQUEST = {
    "start_image": START,
    "prompt": "A cat.",
    "seed": 3,
    "steps": 3,
    "seconds": 1,
    "section_seconds": 0.5,
    "width": 32,
    "height": 32,
    "save_section_stills": True,
}
FILES = ["video.mp4", "video.png", "video.safetensors", "video_section_001.png", "video_section_002.png"]
PATIENCE = 120


class Job:
    """One video in one folder, made by as many processes as it takes."""

    def __init__(self, folder: Path, context: Any) -> None:
        self.output = folder / "output"
        self._said = folder / "said.txt"
        self._context = context
        folder.mkdir(parents=True)
        request = folder / "request.json"
        request.write_text(json.dumps(REQUEST))
        places = ["--models", MODELS, "--output", self.output, "--home", folder / "home", "--name", "video"]
        options = ["--headless", request, *places, "--device", "cpu", "--save-latents"]
        self._arguments = [str(option) for option in options]

    def begin(self, run: Callable[..., None] = preloaded.run_command, *more: object) -> Any:
        process = self._context.Process(target=run, args=(self._arguments, self._said, *more))
        process.start()
        return process

    def finish(self, process: Any = None) -> dict[str, bytes]:
        """Let a process come to its end, which must be a good one; gives what all have made."""
        process = process or self.begin()
        process.join(PATIENCE)
        assert process.exitcode == 0, self._said.read_text("utf-8")
        assert sorted(path.name for path in self.output.iterdir()) == FILES
        assert not list((self._said.parent / "home" / "temp" / "headless").iterdir())
        return {name: (self.output / name).read_bytes() for name in FILES}

    def assert_nothing_is_half(self) -> None:
        """Check that every file under its final name is whole."""
        for path in self.output.glob("*") if self.output.exists() else ():
            if path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".mp4":
                assert len(list(read_frames(path))) == 41


@pytest.fixture(scope="module")
def context() -> Any:
    """Makes processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preloaded.__name__])
    return context


@pytest.fixture(scope="module")
def whole(context, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """The files where no process is killed, and the seconds that they take."""
    job = Job(tmp_path_factory.mktemp("whole") / "job", context)
    process = job.begin()
    begun = time.monotonic()
    return job.finish(process), time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_run_is_finished_by_the_next(context, whole, tmp_path, number):
    made, seconds = whole
    job = Job(tmp_path / "job", context)
    process = job.begin()
    # each test has its part of the time, so that together they hit all of it
    process.join((number + random.random()) / KILLS * seconds)
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)
    job.assert_nothing_is_half()
    assert job.finish() == made


@pytest.mark.slow
def test_runs_killed_at_every_write_make_the_video(context, whole, tmp_path):
    job = Job(tmp_path / "job", context)
    killed = 0
    while (process := job.begin(preloaded.run_until_write, killed + 1)) is not None:
        process.join(PATIENCE)
        job.assert_nothing_is_half()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        assert killed < 30, "it comes no further"
    assert killed >= 3
    assert job.finish(process) == whole[0]

"""Fixtures of the queue's tests: queues that are closed afterwards, a request with a picture."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diffusers_helper.request import GenerationRequest
from tests.support.queue import SOON
from webui.eichi_utils.jobs.job import Run
from webui.eichi_utils.jobs.queue import JobQueue


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """The folder of the jobs."""
    return tmp_path / "temp"


@pytest.fixture
def start(temp: Path) -> Iterator[Callable[..., JobQueue]]:
    """Makes queues over one folder of jobs; in the end runners are released and queues closed."""
    made: list[tuple[JobQueue, Run]] = []

    def start_queue(run: Run, *options: object) -> JobQueue:
        made.append((JobQueue(run, temp, *options), run))
        return made[-1][0]

    yield start_queue
    for queue, run in made:
        if hasattr(run, "go_on"):
            run.go_on.release(10**3)
        assert queue.close(SOON)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "upload" / "cat.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 20), "red").save(path)
    return path


@pytest.fixture
def request_(picture: Path) -> GenerationRequest:
    return GenerationRequest(start_image=str(picture), prompt="A cat yawns.", seed=7)


@pytest.fixture
def long(request_: GenerationRequest) -> GenerationRequest:
    """The request of a video of four sections."""
    return replace(request_, seconds=5)

"""The log of jobs; the events themselves pass unchanged."""

import contextlib
import logging
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Event, Finished, Notice, Planned, SectionDone, StageStarted, Stopped
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest, Keyframe
from tests.support.pictures import PICTURE
from tests.support.queue import Runner
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.log import logged

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


@pytest.fixture(autouse=True)
def _log_everything(caplog) -> None:
    caplog.set_level(logging.INFO, "webui")


def test_events_pass_unchanged_and_are_logged(caplog):
    assert list(logged(Runner(lambda _: EVENTS))(SPEC, threading.Event())) == EVENTS
    for text in ("37 frames, 96x64", "begins: prompt", "sampling of section 0", "{'tokens': 3}", "cat.mp4"):
        assert text in caplog.text
    assert "job cat done after" in caplog.messages[-1]


def test_the_request_is_logged_without_pictures_and_texts(caplog):
    list(logged(Runner(lambda _: EVENTS))(SPEC, threading.Event()))
    assert '"seed": 7' in caplog.messages[0]
    for private in ("secret", "dog", "runs", "data:", "private.png", "other.png"):
        assert private not in caplog.text
    assert caplog.records[0].private == ["A secret cat.", "No dog.", "It runs."]


@pytest.mark.parametrize(
    ("end", "logged_as"),
    [(Stopped(None, 0, 1), "cat stopped after"), (MachineError("disk_full"), "cat failed (MachineE")],
)
def test_a_jobs_end_is_logged(caplog, end, logged_as):
    with contextlib.suppress(MachineError):
        list(logged(Runner(lambda _: [EVENTS[0], end]))(SPEC, threading.Event()))
    assert logged_as in caplog.messages[-1]


def test_an_abandoned_job_cleans_up_at_once(caplog):
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

"""The time that all jobs together take: nothing is invented, and the running job's own speed counts."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from diffusers_helper.errors import MachineError
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from tests.support.page_state import EMPTY_PREFLIGHT
from webui.eichi_utils.form import request_size
from webui.eichi_utils.jobs import forecast
from webui.eichi_utils.jobs.eta import TYPICAL, Eta, Speed, job_parts
from webui.eichi_utils.jobs.forecast import seconds_left
from webui.eichi_utils.jobs.job import Job, JobSpec, Progress
from webui.eichi_utils.jobs.view import QueueView
from webui.eichi_utils.page.state import page_state
from webui.eichi_utils.text.translations import Translator

KNOWN = Speed(60.0, computed_step=0, decoding=0, saving=0)
"""A minute for each job."""


def job_of(folder: Path, number: int, **values: object) -> Job:
    Image.new("RGB", (96, 64), "red").save(picture := folder / "a.png")
    request = GenerationRequest(start_image=str(picture), seconds=2, teacache=False, seed=1)
    return Job(JobSpec(f"{number:016x}", f"{number}", folder, request, folder), position=number, **values)


def view(running: Job | None, waiting: list[Job]) -> QueueView:
    return QueueView(1, running, tuple(waiting), ())


@pytest.fixture
def waiting(tmp_path: Path) -> list[Job]:
    return [job_of(tmp_path, number) for number in range(5)]


def running(waiting: list[Job], eta: Eta | None, left: float | None) -> Job:
    return replace(waiting[0], state="running", eta=eta, progress=Progress(seconds_left=left))


def test_the_time_of_all_is_that_of_each_and_what_is_left_of_the_running_one(waiting):
    eta = Eta([("overhead", 1), ("computed_step", 1)], replace(KNOWN, overhead=30.0, computed_step=1e-9))
    assert seconds_left(view(None, waiting), KNOWN) == 5 * 60
    assert seconds_left(view(running(waiting, eta, 100.0), waiting[1:]), KNOWN) == pytest.approx(220, abs=1)
    stopping = replace(running(waiting, eta, 100.0), stopping=True)
    assert seconds_left(view(stopping, waiting[1:]), KNOWN) == 4 * 60
    measured = replace(Eta([("overhead", 1), ("computed_step", 1)], TYPICAL), measured={"overhead": (9.0,)})
    assert seconds_left(view(running(waiting, measured, 100.0), waiting[1:]), None) > 100 + 4 * 9


def test_no_time_is_told_while_the_speed_is_not_known(waiting, tmp_path, monkeypatch):
    assert seconds_left(view(None, waiting), None) is None
    for unknown in (running(waiting, None, None), running(waiting, Eta([("overhead", 1)]), None)):
        assert seconds_left(view(unknown, waiting[1:]), KNOWN) is None
    (tmp_path / "a.png").unlink()
    gone = [replace(job, spec=replace(job.spec, id="f" * 16)) for job in waiting]
    assert seconds_left(view(None, gone), KNOWN) is None
    refused = MachineError("image_unreadable", image="a.png", reason="Too many open files")
    monkeypatch.setattr(forecast, "request_size", Mock(side_effect=refused))
    assert seconds_left(view(None, gone), KNOWN) is None


def test_finished_sections_of_an_earlier_run_take_no_time(waiting):
    speed, (job, *_) = replace(KNOWN, computed_step=1e-3), waiting
    height, width = request_size(job.request) or (0, 0)
    parts = job_parts(job.request, make_plan(job.request), height, width)
    whole, section = sum(speed.seconds(parts)), speed.seconds(parts)[1] * job.request.steps
    resumed = replace(job, progress=Progress(sections=2, sections_done=1))
    assert seconds_left(view(None, [job]), speed) == pytest.approx(whole)
    assert seconds_left(view(None, [resumed]), speed) == pytest.approx(whole - section)


def test_the_page_tells_how_many_wait_and_for_how_long(waiting):
    def told(jobs: QueueView, speed: Speed | None, language: str) -> str:
        named = {"server": "s", "sound": True, "speed": speed}
        return str(page_state(jobs, EMPTY_PREFLIGHT, Translator(language), **named)["waiting"])

    assert told(view(None, waiting), replace(KNOWN, overhead=372.0), "ja") == "待ち 5 件、あと約 31 分"
    assert told(view(None, waiting), None, "ja") == "待ち 5 件"
    assert told(view(None, waiting), KNOWN, "en") == "5 waiting, about 5 min in total"
    assert told(view(None, []), KNOWN, "en") == ""

"""What is announced before a job: exactly what the engine then plans."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.events import Planned
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from tests.support.tiny import make_loader, run
from webui.eichi_utils.form import DEFAULTS, LOOP, Pictures, Row, to_requests
from webui.eichi_utils.jobs.eta import Pace
from webui.eichi_utils.jobs.speed_history import SpeedBook
from webui.eichi_utils.page.estimate import UNKNOWN_PICTURE, job_work, look_ahead, request_size

PACE = Pace(overhead=10, computed_step=1e-3, skipped_step=None, computed_share=1, decoding=0, saving=0)


@pytest.fixture(scope="module")
def loader() -> ModelLoader:
    return make_loader()


@pytest.fixture
def speed(tmp_path) -> SpeedBook:
    return SpeedBook(tmp_path / "speed.json")


def picture(folder: Path, width: int, height: int, turned: bool = False) -> str:
    path = folder / f"{width}x{height}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1  # how a phone marks a picture that is to be stood up
    Image.new("RGB", (width, height), "teal").save(path, exif=exif)
    return str(path)


def request_of(pictures: Pictures, extras: dict[str, Any] | None = None, **values: Any) -> GenerationRequest:
    return to_requests(DEFAULTS | values, pictures, extras or {})[0]


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((96, 64), {}),
        ((64, 96), {"seconds": 2, "resolution": 480}),
        ((50, 50), {"seconds": 4, "resolution": 64}),
        ((1000, 1010), {"seconds": 6, "section_seconds": 0.5, "resolution": 320}),
        ((2000, 100), {"seconds": 0.5, "resolution": 1024}),
        ((100, 2000), {"seconds": 8.5, "section_seconds": 0.5}),
        ((300, 200), {"seconds": 16, "mode": LOOP}),
        ((640, 608), {"seconds": 120}),
        ((33, 977), {"seconds": 1.7, "section_seconds": 0.5, "use_all_padding": True}),
    ],
)
def test_frames_seconds_sections_and_size_are_those_that_the_engine_plans(
    loader, speed, tmp_path, shape, values
):
    request = request_of(Pictures((picture(tmp_path, *shape),)), **values)
    outlook = look_ahead(request, speed, None)
    planned = next(iter(run(request, tmp_path / "out", loader=loader)))
    assert isinstance(planned, Planned)
    assert (outlook.frames, outlook.seconds) == (planned.plan.pixel_frames, planned.plan.seconds)
    assert outlook.sections == len(planned.plan.sections)
    assert (outlook.height, outlook.width) == (planned.height, planned.width)


def test_a_picture_that_its_camera_turned_counts_as_it_is_shown(loader, speed, tmp_path):
    request = request_of(Pictures((picture(tmp_path, 900, 600, turned=True),)))
    outlook = look_ahead(request, speed, None)
    planned = next(iter(run(request, tmp_path / "out", loader=loader)))
    assert isinstance(planned, Planned)
    assert (outlook.height, outlook.width) == (planned.height, planned.width) == (768, 512)


def test_a_size_that_was_asked_for_is_announced(speed, tmp_path):
    extras = {"width": 320, "height": 256}
    for start in (picture(tmp_path, 10, 90), UNKNOWN_PICTURE):
        outlook = look_ahead(request_of(Pictures((start,)), extras), speed, None)
        assert (outlook.width, outlook.height) == (320, 256)


def test_without_a_start_image_only_the_size_is_unknown(speed):
    outlook = look_ahead(request_of(Pictures((UNKNOWN_PICTURE,)), seconds=2), speed, "a card")
    assert dataclasses.astuple(outlook) == (73, 73 / 30, 2, None, None, None)


def test_a_sections_picture_decides_the_size_where_it_is_the_start(speed, tmp_path):
    rows = {0: Row(picture(tmp_path, 500, 500)), 1: Row(picture(tmp_path, 300, 900))}
    request = request_of(Pictures(rows=rows), use_keyframes=True, seconds=2)
    outlook = look_ahead(request, speed, None)
    assert (outlook.height, outlook.width) == request_size(request) == (960, 416)


def test_a_start_image_that_is_gone_is_named(speed, tmp_path):
    with pytest.raises(InputError) as caught:
        look_ahead(request_of(Pictures((str(tmp_path / "gone.png"),))), speed, None)
    assert caught.value.code == "image_missing"


def test_the_time_is_told_where_this_machine_has_made_a_video_before(speed, tmp_path):
    request = request_of(Pictures((picture(tmp_path, 96, 64),)), steps=10, resolution=64, teacache=False)
    assert look_ahead(request, speed, "a card").duration is None
    outlook = look_ahead(request, speed, None)
    assert outlook.height is not None
    assert outlook.width is not None
    values = 9 * outlook.height // 8 * outlook.width // 8
    speed.learn("a card", job_work(request, make_plan(request), (outlook.height, outlook.width)), PACE)
    assert look_ahead(request, speed, "a card").duration == pytest.approx(10 + 10 * 1e-3 * values)
    assert look_ahead(request, speed, "another card").duration is None
    assert look_ahead(request, speed, None).duration is None


def test_twice_the_sections_take_twice_the_steps(speed, tmp_path):
    short, long = (
        request_of(Pictures((picture(tmp_path, 96, 64),)), seconds=seconds, teacache=False)
        for seconds in (2.4, 4.8)
    )
    speed.learn("a card", job_work(short, make_plan(short), (64, 96)), PACE)
    first, second = (look_ahead(request, speed, "a card").duration for request in (short, long))
    assert first is not None
    assert second is not None
    assert second - PACE.overhead == pytest.approx(2 * (first - PACE.overhead))

"""The estimate before a job: exactly what the engine then plans."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.events import Planned
from diffusers_helper.request import GenerationRequest
from tests.support.tiny import run
from webui.eichi_utils.form import DEFAULTS, LOOP, Pictures, Row, to_requests
from webui.eichi_utils.jobs.eta import Speed, SpeedHistory
from webui.eichi_utils.page.estimate import UNKNOWN_PICTURE, Estimate, estimate, request_size

SPEED = Speed(overhead=10, computed_step=1e-3, decoding=0, saving=0)


@pytest.fixture
def speeds(tmp_path) -> SpeedHistory:
    return SpeedHistory(tmp_path / "speed.json")


def picture(folder: Path, width: int, height: int, orientation: int = 1) -> str:
    path = folder / f"{width}x{height}.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), "teal").save(path, exif=exif)
    return str(path)


def request_of(pictures: Pictures, extras: dict[str, Any] | None = None, **values: Any) -> GenerationRequest:
    return to_requests(DEFAULTS | values, pictures, extras or {})[0]


@pytest.mark.parametrize(
    ("shape", "values", "size"),
    [
        ((96, 64), {}, (512, 768)),
        ((900, 600, 6), {}, (768, 512)),  # a phone's mark: to be turned upright
        ((1000, 1010), {"seconds": 6, "section_seconds": 0.5, "resolution": 320}, (320, 320)),
        ((300, 200), {"seconds": 16, "mode": LOOP}, (512, 768)),
        ((33, 977), {"seconds": 1.7, "section_seconds": 0.5, "use_all_padding": True}, (960, 416)),
    ],
)
def test_the_estimate_is_what_the_engine_plans(speeds, tmp_path, shape, values, size):
    request = request_of(Pictures((picture(tmp_path, *shape),)), **values)
    expected = estimate(request, speeds, None)
    planned = next(iter(run(request, tmp_path / "out")))
    assert isinstance(planned, Planned)
    plan = planned.plan
    shown = Estimate(plan.pixel_frames, plan.seconds, len(plan.sections), planned.height, planned.width)
    assert (expected, size) == (shown, (expected.height, expected.width))


def test_a_requested_size_is_estimated(speeds, tmp_path):
    extras = {"width": 320, "height": 256}
    for start in (picture(tmp_path, 10, 90), UNKNOWN_PICTURE):
        expected = estimate(request_of(Pictures((start,)), extras), speeds, None)
        assert (expected.width, expected.height) == (320, 256)


def test_without_a_start_image_only_the_size_is_unknown(speeds):
    expected = estimate(request_of(Pictures((UNKNOWN_PICTURE,)), seconds=2), speeds, "a GPU")
    assert expected == Estimate(73, 73 / 30, 2)


def test_a_keyframe_at_the_start_decides_the_size(speeds, tmp_path):
    rows = {0: Row(picture(tmp_path, 500, 500)), 1: Row(picture(tmp_path, 300, 900))}
    request = request_of(Pictures(rows=rows), use_keyframes=True, seconds=2)
    expected = estimate(request, speeds, None)
    assert (expected.height, expected.width) == request_size(request) == (960, 416)


def test_a_start_image_that_is_gone_is_named(speeds, tmp_path):
    with pytest.raises(InputError) as caught:
        estimate(request_of(Pictures((str(tmp_path / "gone.png"),))), speeds, None)
    assert caught.value.code == "image_missing"


def test_the_duration_is_known_after_a_job_on_this_machine(speeds, tmp_path):
    image = picture(tmp_path, 96, 64)
    short, long = (
        request_of(Pictures((image,)), seconds=seconds, steps=10, resolution=64, teacache=False)
        for seconds in (2.4, 4.8)
    )
    assert estimate(short, speeds, "a GPU").duration is None
    speeds.learn("a GPU", SPEED)
    expected = estimate(short, speeds, "a GPU")
    assert expected.height is not None
    assert expected.width is not None
    step = 9 * expected.height // 8 * expected.width // 8 * SPEED.computed_step
    assert expected.duration == pytest.approx(10 + 2 * 10 * step)
    assert estimate(long, speeds, "a GPU").duration == pytest.approx(10 + 4 * 10 * step)
    assert estimate(short, speeds, "another GPU").duration is None
    assert estimate(short, speeds, None).duration is None

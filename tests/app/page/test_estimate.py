"""The estimate before a job: exactly what the engine then plans."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.events import Planned
from diffusers_helper.request import GenerationRequest
from tests.support.tiny import run
from webui.eichi_utils.form import DEFAULTS, LOOP, UNKNOWN_PICTURE, Pictures, Row, request_size, to_requests
from webui.eichi_utils.jobs.eta import Speed, SpeedHistory
from webui.eichi_utils.page.estimate import estimate
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")
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


def request_of(pictures: Pictures, **values: Any) -> GenerationRequest:
    return to_requests(DEFAULTS | values, pictures, {})[0]


@pytest.mark.parametrize(
    ("shape", "values", "size"),
    [
        ((96, 64), {}, "768 x 512"),
        ((900, 600, 6), {}, "512 x 768"),  # a phone's mark: to be turned upright
        ((1000, 1010), {"seconds": 6, "section_seconds": 0.5, "resolution": 320}, "320 x 320"),
        ((300, 200), {"seconds": 16, "mode": LOOP}, "768 x 512"),
        ((33, 977), {"seconds": 1.7, "section_seconds": 0.5, "use_all_padding": True}, "416 x 960"),
    ],
)
def test_the_estimate_is_what_the_engine_plans(speeds, tmp_path, shape, values, size):
    request = request_of(Pictures((picture(tmp_path, *shape),)), **values)
    planned = next(iter(run(request, tmp_path / "out")))
    assert isinstance(planned, Planned)
    plan, loop = planned.plan, "; the end returns to the start image" if "mode" in values else ""
    assert size == f"{planned.width} x {planned.height}"
    length = f"{plan.pixel_frames} frames, {plan.seconds:.2f} s, {size}, sections: {len(plan.sections)}"
    assert estimate([request], speeds, None, WORDS) == length + loop


def test_a_size_is_shown_as_far_as_it_is_known(speeds, tmp_path):
    unknown = request_of(Pictures((UNKNOWN_PICTURE,)), seconds=2)
    assert estimate([unknown], speeds, "a GPU", WORDS) == "73 frames, 2.43 s, sections: 2"
    for start in (picture(tmp_path, 10, 90), UNKNOWN_PICTURE):
        (request,) = to_requests(DEFAULTS, Pictures((start,)), {"width": 320, "height": 256})
        assert ", 320 x 256, " in estimate([request], speeds, None, WORDS)
    rows = {0: Row(picture(tmp_path, 500, 500)), 1: Row(picture(tmp_path, 300, 900))}
    request = request_of(Pictures(rows=rows), use_keyframes=True, seconds=2)
    assert request_size(request) == (960, 416), "a keyframe at the start decides"
    with pytest.raises(InputError, match="image_missing"):
        estimate([request_of(Pictures((str(tmp_path / "gone.png"),)))], speeds, None, WORDS)


def test_the_duration_is_known_after_a_job_on_this_machine(speeds, tmp_path):
    start = Pictures((picture(tmp_path, 96, 64),))
    values = {"steps": 10, "resolution": 64, "teacache": False}
    short, long = (request_of(start, seconds=seconds, **values) for seconds in (2.4, 4.8))
    assert "takes" not in estimate([short], speeds, "a GPU", WORDS)
    speeds.learn("a GPU", SPEED)
    size = request_size(short)
    assert size is not None
    step = 9 * size[0] // 8 * size[1] // 8 * SPEED.computed_step
    for request, sections in ((short, 2), (long, 4)):
        text = estimate([request], speeds, "a GPU", WORDS)
        assert text.endswith(f", takes about {10 + 10 * sections * step:.0f} s")
    for machine in ("another GPU", None):
        assert "takes" not in estimate([short], speeds, machine, WORDS)

"""The estimate before a job: exactly what the engine then plans."""

from pathlib import Path

import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.request import GenerationRequest
from tests.support.tiny import run
from webui.eichi_utils.form import DEFAULTS, UNKNOWN_PICTURE, Pictures, Row, request_size, to_requests
from webui.eichi_utils.jobs.eta import Speed
from webui.eichi_utils.page.estimate import estimate
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")


def picture(folder: Path, width: int, height: int, orientation: int = 1) -> str:
    path = folder / f"{width}x{height}.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), "teal").save(path, exif=exif)
    return str(path)


def request_of(start: str, **values: object) -> GenerationRequest:
    return to_requests(DEFAULTS | values, Pictures((start,)), {})[0]


@pytest.mark.parametrize(
    ("shape", "values", "size"),
    [
        ((96, 64), {}, "768 × 512"),
        ((900, 600, 6), {}, "512 × 768"),  # a phone's mark: to be turned upright
        ((1000, 1010), {"seconds": 6, "section_seconds": 0.5, "resolution": 320}, "320 × 320"),
        ((300, 200), {"seconds": 16, "loop": True}, "768 × 512"),
        ((33, 977), {"seconds": 1.7, "section_seconds": 0.5, "all_padding": 1.0}, "416 × 960"),
    ],
)
def test_the_estimate_is_what_the_engine_plans(tmp_path, shape, values, size):
    request = request_of(picture(tmp_path, *shape), **values)
    planned = next(iter(run(request, tmp_path / "out")))
    plan, loop = planned.plan, "; the end returns to the start image" if "loop" in values else ""
    long = "\n" + WORDS("page.outlook_long") if values.get("seconds", 0) >= 8 else ""
    assert size == f"{planned.width} × {planned.height}"
    count = len(plan.sections)
    sections = f"{count} sections" if count > 1 else "1 section"
    length = f"{plan.pixel_frames} frames, {plan.seconds:.2f} s, {size}, {sections}"
    assert estimate([request], None, WORDS) == length + loop + long


@pytest.mark.parametrize("section_seconds", [0.5, 1])
def test_a_video_as_long_as_that_of_8_seconds_is_told_to_be_long(section_seconds):
    def told(seconds: float) -> str:
        request = request_of(UNKNOWN_PICTURE, seconds=seconds, section_seconds=section_seconds)
        return estimate([request], None, WORDS)

    assert told(7.9) == told(8)
    assert WORDS("page.outlook_long") in told(7.9)
    assert WORDS("page.outlook_long") not in told(7)


def test_a_size_is_shown_as_far_as_it_is_known(tmp_path):
    unknown = estimate([request_of(UNKNOWN_PICTURE, seconds=2)], Speed(10, 1, 1, 1), WORDS)
    assert unknown == "73 frames, 2.43 s, 2 sections"
    for start in (picture(tmp_path, 10, 90), UNKNOWN_PICTURE):
        requests = to_requests(DEFAULTS, Pictures((start,)), {"width": 320, "height": 256})
        assert ", 320 × 256, " in estimate(requests, None, WORDS)
    rows = {0: Row(picture(tmp_path, 500, 500)), 1: Row(picture(tmp_path, 300, 900))}
    (request,) = to_requests(DEFAULTS | {"use_keyframes": True, "seconds": 2}, Pictures(rows=rows), {})
    assert request_size(request) == (960, 416), "a keyframe at the start decides"
    with pytest.raises(InputError, match="image_missing"):
        estimate([request_of(str(tmp_path / "gone.png"))], None, WORDS)


def test_the_duration_is_known_after_a_job_on_this_machine(tmp_path):
    start, speed = picture(tmp_path, 96, 64), Speed(10, computed_step=1e-3, decoding=0, saving=0)
    for seconds, sections in ((2.4, 2), (4.8, 4)):
        request = request_of(start, seconds=seconds, steps=10, resolution=64, teacache=False)
        height, width = request_size(request)
        duration = 10 + 10 * sections * 9 * height // 8 * width // 8 * 1e-3
        assert estimate([request], speed, WORDS).endswith(f", about {duration:.0f} s to make")
        assert "to make" not in estimate([request], None, WORDS)


def test_several_start_images_are_counted(tmp_path):
    requests = to_requests(DEFAULTS, Pictures((picture(tmp_path, 96, 64), picture(tmp_path, 64, 96))), {})
    assert estimate(requests, None, WORDS).endswith(WORDS("page.outlook_videos", count=2))


def test_several_videos_have_a_time_each_and_a_time_for_all(tmp_path):
    requests = 30 * [request_of(picture(tmp_path, 96, 64), teacache=False)]
    speed = Speed(11, computed_step=0, decoding=0, saving=0)
    assert estimate(requests, speed, Translator("ja")).endswith("、1 本約 11 秒、30 本で約 6 分")
    assert estimate(requests, speed, WORDS).endswith(", about 11 s each, 6 min for all 30")
    speed = Speed(96, computed_step=0, decoding=0, saving=0)
    told = estimate(requests[:3], speed, Translator("ja"))
    assert told.endswith("、1 本約 1 分 40 秒、3 本で約 5 分"), "what a reader reckons"

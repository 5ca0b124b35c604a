"""The request: its defaults, what it takes, and that it survives being written and read."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.request import GenerationRequest, Keyframe, is_data_uri, parse_request_json
from diffusers_helper.sections import SectionSize
from tests.support.random_requests import random_request

MINIMAL = {"start_image": "a.png"}


def refusal(values: object) -> InputError:
    with pytest.raises(InputError) as caught:
        GenerationRequest.from_dict(values)
    return caught.value


def test_absent_keys_take_the_defaults():
    assert GenerationRequest.from_dict(MINIMAL) == GenerationRequest(
        start_image="a.png",
        end_image=None,
        end_frame_strength=1.0,
        prompt="",
        negative_prompt="",
        seed=None,
        seconds=1.0,
        section_seconds=1.0,
        steps=16,
        teacache=True,
        teacache_threshold=0.40,
        distilled_guidance_scale=10.0,
        guidance_scale=1.0,
        guidance_rescale=0.0,
        all_padding=None,
        loop=False,
        keyframes=(),
        resolution=640,
        width=None,
        height=None,
        crf=16,
        keep_section_videos=False,
        save_section_stills=False,
    )


def test_the_limits_themselves_are_taken():
    low = {"seconds": 1e-9, "steps": 1, "crf": 1, "resolution": 64, "width": 16, "height": 16, "seed": 0}
    high = {"seconds": 120, "steps": 100, "crf": 51, "resolution": 1536, "width": 2048, "height": 2048}
    for values in (low, high | {"seed": 2**63 - 1, "all_padding": 10, "guidance_scale": 32}):
        request = GenerationRequest.from_dict(MINIMAL | values)
        assert {key: getattr(request, key) for key in values} == values


def test_whole_numbers_may_be_written_with_a_point():
    request = GenerationRequest.from_dict(MINIMAL | {"steps": 20.0, "seed": 1e3, "seconds": 2})
    assert (request.steps, request.seed, request.seconds) == (20, 1000, 2.0)
    assert [type(value) for value in (request.steps, request.seed, request.seconds)] == [int, int, float]


@pytest.mark.parametrize("key", ["end_image", "seed", "all_padding", "width", "height"])
def test_null_is_the_same_as_leaving_an_optional_key_out(key):
    assert GenerationRequest.from_dict(MINIMAL | {key: None}) == GenerationRequest.from_dict(MINIMAL)


def test_section_seconds_choose_the_section_size():
    one, half = SectionSize.ONE_SECOND, SectionSize.HALF_SECOND
    for seconds, size in ((1, one), (1.0, one), (0.5, half)):
        assert GenerationRequest.from_dict(MINIMAL | {"section_seconds": seconds}).section_size is size


def test_keyframes_hold_a_picture_or_a_prompt():
    values = {"seconds": 4, "keyframes": [{"section": 2, "image": "b.png"}, {"section": 0, "prompt": "runs"}]}
    request = GenerationRequest.from_dict(MINIMAL | values)
    assert request.keyframes == (Keyframe(2, "b.png", ""), Keyframe(0, None, "runs"))


def test_a_keyframe_picture_can_stand_in_for_the_start_picture():
    request = GenerationRequest.from_dict({"keyframes": [{"section": 0, "image": "b.png"}]})
    assert request.start_image is None
    assert refusal({"keyframes": [{"section": 0, "prompt": "runs"}]}).code == "no_start_image"


def test_the_last_section_is_in_range_and_the_next_one_is_not():
    for section_seconds, sections in ((1, 3), (0.5, 7)):
        values = MINIMAL | {"seconds": 4, "section_seconds": section_seconds}
        inside = values | {"keyframes": [{"section": sections - 1, "prompt": "a"}]}
        assert GenerationRequest.from_dict(inside).num_sections == sections
        error = refusal(values | {"keyframes": [{"section": sections, "prompt": "a"}]})
        assert error.code == "keyframe_out_of_range"
        assert error.values == {"section": sections, "sections": sections, "last": sections - 1}


def test_pictures_are_looked_for_beside_the_request():
    values = {
        "start_image": "pictures/a.png",
        "end_image": "/else/b.png",
        "keyframes": [{"section": 0, "image": "../c.png"}],
    }
    request = GenerationRequest.from_dict(values, Path("/videos/cat"))
    assert request.start_image == str(Path("/videos/cat/pictures/a.png").absolute())
    assert request.end_image == str(Path("/else/b.png").absolute())
    assert request.keyframes[0].image == str(Path("/videos/cat/../c.png").absolute())


def test_a_picture_inside_the_request_is_not_looked_for():
    uri = "data:image/png;base64,QUJD"
    assert is_data_uri(uri)
    assert GenerationRequest.from_dict({"start_image": uri}, Path("/videos")).start_image == uri


def test_names_with_spaces_and_any_script_are_kept():
    request = GenerationRequest.from_dict({"start_image": " 猫 1.png"}, Path("/videos"))
    assert request.start_image == str(Path("/videos/ 猫 1.png").absolute())


@pytest.mark.parametrize(("size", "nearest"), [(100, 96), (104, 96), (105, 112), (17, 16), (2047, 2048)])
def test_a_size_that_does_not_divide_names_the_nearest_that_does(size, nearest):
    error = refusal(MINIMAL | {"width": size, "height": 64})
    assert error.code == "size_not_multiple"
    assert error.values["nearest"] == nearest


def test_an_error_shows_a_long_value_short():
    error = refusal(MINIMAL | {"steps": "x" * 10**6})
    assert len(str(error.values["value"])) == 60


def test_values_nested_deeply_are_refused_at_any_depth():
    for depth in (10, 500, 900, 990, 5000):
        text = '{"start_image": "a.png", "prompt": ' + "[" * depth + "]" * depth + "}"
        with pytest.raises(InputError) as caught:
            GenerationRequest.from_dict(parse_request_json(text))
        assert caught.value.code in ("not_a_text", "request_too_deep")


def test_a_request_comes_back_equal_from_its_json():
    rng = random.Random(0)
    for _ in range(300):
        request = random_request(rng)
        text = json.dumps(request.to_dict(), ensure_ascii=rng.random() < 0.5)
        assert GenerationRequest.from_dict(parse_request_json(text)) == request
        assert GenerationRequest.from_dict(parse_request_json(text.encode("utf-8-sig"))) == request


def test_a_request_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationRequest(start_image="a.png").steps = 5  # type: ignore[misc]

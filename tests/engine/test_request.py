"""The request: its defaults, the values it takes and refuses, and the way to JSON and back."""

import json
import random
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.plan import make_plan
from diffusers_helper.request import (
    MAX_PROMPT,
    GenerationRequest,
    Keyframe,
    field_limits,
    is_data_uri,
    parse_request_json,
)
from tests.support.random_requests import random_request

MINIMAL = {"start_image": "a.png"}
DEFAULTS = {
    "start_image": "a.png",
    "end_image": None,
    "end_frame_strength": 1.0,
    "crop_position": 0.5,
    "prompt": "",
    "seed": None,
    "negative_prompt": "",
    "seconds": 1.0,
    "section_seconds": 1.0,
    "steps": 16,
    "teacache": True,
    "teacache_threshold": 0.40,
    "distilled_guidance_scale": 10.0,
    "guidance_scale": 1.0,
    "loop": False,
    "guidance_rescale": 0.0,
    "all_padding": None,
    "close_after": None,
    "keyframes": [],
    "previous_video": None,
    "crf": 16,
    "resolution": 640,
    "width": None,
    "height": None,
    "keep_section_videos": False,
    "save_section_stills": False,
    "embed_request": True,
}


def refusal(values: object) -> InputError:
    with pytest.raises(InputError) as caught:
        GenerationRequest.from_dict(values)
    return caught.value


# -- values that are taken ---------------------------------------------------------------------------


def test_absent_keys_take_the_defaults():
    assert GenerationRequest.from_dict(MINIMAL).to_dict() == DEFAULTS


def test_the_limits_themselves_are_taken():
    low = {"seconds": 1e-9, "steps": 1, "crf": 1, "resolution": 64, "width": 16, "height": 16, "seed": 0}
    high = {"seconds": 120, "steps": 100, "crf": 51, "resolution": 1536, "width": 2048, "height": 2048}
    for values in (low, high | {"seed": 2**63 - 1, "all_padding": 10, "guidance_scale": 32}):
        request = GenerationRequest.from_dict(MINIMAL | values)
        assert {key: getattr(request, key) for key in values} == values
    assert [field_limits(key) for key in ("steps", "seconds", "all_padding")] == [(1, 100), (0, 120), (0, 10)]


def test_whole_numbers_may_have_a_decimal_point():
    request = GenerationRequest.from_dict(MINIMAL | {"steps": 20.0, "seed": 1e3, "seconds": 2})
    assert (request.steps, request.seed, request.seconds) == (20, 1000, 2.0)
    assert [type(value) for value in (request.steps, request.seed, request.seconds)] == [int, int, float]


def test_null_leaves_an_optional_key_out():
    nulls = dict.fromkeys(("end_image", "seed", "all_padding", "close_after", "width", "height"))
    assert GenerationRequest.from_dict(MINIMAL | nulls) == GenerationRequest.from_dict(MINIMAL)


def test_keyframes_hold_an_image_or_a_prompt():
    frames = [{"section": 2, "image": "b.png", "prompt": None}, {"section": 0, "prompt": "runs"}]
    request = GenerationRequest.from_dict({"seconds": 4, "keyframes": frames})
    assert (request.start_image, request.start_picture) == (None, "b.png")
    assert request.keyframes == (Keyframe(2, "b.png", ""), Keyframe(0, None, "runs"))


def test_a_request_without_a_picture_is_refused_where_one_is_needed():
    for request in (GenerationRequest(), GenerationRequest(loop=True, keyframes=(Keyframe(0, prompt="a"),))):
        with pytest.raises(InputError) as caught:
            make_plan(request)
        assert caught.value.code == "no_start_image"


def test_image_paths_start_at_the_folder_of_the_request():
    uri = "data:image/png;base64,QUJD"
    for image in ("pictures/a.png", "/else/b.png", "../c.png", " 猫 1.png"):
        frames = [{"section": 0, "image": image}]
        values = {"start_image": image, "end_image": uri, "keyframes": frames}
        request = GenerationRequest.from_dict(values, Path("/videos/cat"))
        absolute = str((Path("/videos/cat") / image).absolute())
        assert (request.start_image, request.keyframes[0].image) == (absolute, absolute)
        assert is_data_uri(uri)
        assert request.end_image == uri


# -- values that are refused -------------------------------------------------------------------------

SECTION = '"keyframes": [{"section": '
REFUSED = [
    *(("not_a_text", f'"prompt": {shown}', shown) for shown in ("5", "null", "true")),
    ("not_a_text", '"prompt": ["a"]', "[...]"),
    ("not_a_text", '"negative_prompt": {}', "{...}"),
    ("not_a_text", '"start_image": 7', "7"),
    ("broken_text", '"prompt": "\\ud800"', None),
    ("broken_text", '"start_image": "\\udfff.png"', None),
    *(("out_of_range", f'"steps": {shown}', shown) for shown in ("0", "-1", "1000")),
    *(("not_a_whole_number", f'"steps": {shown}', shown) for shown in ("true", "2.5", "null", '"x"')),
    *(("not_a_whole_number", f'"steps": {shown}', shown) for shown in ("NaN", "Infinity")),
    ("out_of_range", '"steps": 1' + "0" * 400, "1" + "0" * 56 + "..."),
    ("not_a_whole_number", '"steps": 1' + "0" * 5000, "Infinity"),
    ("not_a_whole_number", '"steps": ' + "[" * 900 + "]" * 900, "[...]"),
    ("not_a_whole_number", '"steps": "' + "x" * 10**6 + '"', '"' + "x" * 56 + "..."),
    *(("out_of_range_above", f'"seconds": {shown}', shown) for shown in ("0", "-1", "120.5", "NaN")),
    *(("out_of_range_above", f'"seconds": {shown}', shown) for shown in ("-Infinity", "1000000000.0")),
    ("out_of_range_above", '"seconds": 1' + "0" * 400, "1" + "0" * 56 + "..."),
    ("not_a_number_above", '"seconds": "1"', '"1"'),
    *(("number_missing", f'"{key}": ""', None) for key in ("seconds", "steps", "all_padding")),
    *(("section_seconds", f'"section_seconds": {shown}', shown) for shown in ("2", "true", "null", '"1"')),
    ("section_seconds", '"section_seconds": []', "[...]"),
    *(("out_of_range", f'"seed": {shown}', shown) for shown in ("-1", "1e+300", "9223372036854775808")),
    ("not_a_whole_number", '"seed": 1.5', "1.5"),
    *(("not_true_or_false", f'"loop": {shown}', shown) for shown in ("1", "null", '"yes"')),
    *(("not_true_or_false", f'"{key}": 0', "0") for key in ("keep_section_videos", "save_section_stills")),
    ("not_true_or_false", '"teacache": "false"', '"false"'),
    ("out_of_range", '"teacache_threshold": NaN', "NaN"),
    ("out_of_range", '"end_frame_strength": 1.01', "1.01"),
    ("out_of_range", '"guidance_scale": -0.5', "-0.5"),
    ("out_of_range", '"guidance_rescale": 2', "2"),
    ("not_a_number", '"distilled_guidance_scale": false', "false"),
    ("not_a_number", '"all_padding": "yes"', '"yes"'),
    ("out_of_range", '"crf": 0', "0"),
    ("out_of_range", '"resolution": 32', "32"),
    ("out_of_range", '"width": 8, "height": 64', "8"),
    ("width_without_height", '"width": 64', None),
    ("width_without_height", '"height": 64, "width": null', None),
    ("no_start_image", '"start_image": null', None),
    ("no_start_image", '"start_image": null, ' + SECTION + '0, "prompt": "runs"}]', None),
    *(("no_picture_name", f'"start_image": "{name}"', None) for name in ("", " ", "a\\u0000b")),
    ("keyframes_not_a_list", '"keyframes": {}', "{...}"),
    ("keyframe_not_an_object", '"keyframes": [3]', "3"),
    ("keyframe_without_section", '"keyframes": [{"prompt": "a"}]', None),
    *(
        ("keyframe_empty", SECTION + f"0{rest}}}]", None)
        for rest in ("", ', "prompt": " "', ', "image": null')
    ),
    ("not_a_text", SECTION + '0, "prompt": 1}]', "1"),
    ("not_a_whole_number", SECTION + '"0", "prompt": "a"}]', '"0"'),
    *(("keyframe_out_of_range", SECTION + f'{n}, "prompt": "a"}}]', None) for n in (1, -1)),
    ("keyframe_twice", SECTION + '0, "prompt": "a"}, {"section": 0, "prompt": "b"}]', None),
    ("close_after_too_late", '"close_after": 1', 1),
]
"""The code, the JSON beside the start image, and the value that the error shows."""


@pytest.mark.parametrize(("code", "text", "shown"), REFUSED, ids=[text[:40] for _, text, _ in REFUSED])
def test_a_wrong_value_is_refused_with_its_code(code, text, shown):
    error = refusal(parse_request_json('{"start_image": "a.png", ' + text + "}"))
    assert (error.code, error.values.get("value")) == (code, shown)
    key = text.partition('"')[2].partition('"')[0]
    assert str(error.values.get("field", key)).split("[")[0] == key


def test_a_prompt_may_have_a_million_characters():
    longest = {"prompt": "猫" * MAX_PROMPT, "negative_prompt": "x" * MAX_PROMPT}
    GenerationRequest.from_dict(MINIMAL | longest)
    frames = [{"section": 0, "prompt": "x" * (MAX_PROMPT + 1)}]
    for key, values in (
        *((key, {key: text + "x"}) for key, text in longest.items()),
        ("keyframes[0].prompt", {"keyframes": frames}),
    ):
        error = refusal(MINIMAL | values)
        assert error.code == "text_too_long"
        assert error.values == {"field": key, "length": MAX_PROMPT + 1, "most": MAX_PROMPT}


@pytest.mark.parametrize("values", [[], ["a"], "prompt", None, 7])
def test_a_request_that_is_no_object_is_refused(values):
    assert refusal(values).code == "request_not_an_object"


@pytest.mark.parametrize(
    ("key", "shown", "nearest"),
    [
        *[(key, key, near) for key, near in (("promt", "prompt"), ("Start_Image", "start_image"))],
        *[("step", "step", "steps"), ("", "", None), ("全く違う", "全く違う", None)],
        *[("\ud800", "\\ud800", None), ("x" * 5_000_000, "x" * 57 + "...", None)],
    ],
    ids=range(7),
)
def test_an_unknown_key_is_named_with_the_nearest_known(key, shown, nearest):
    error = refusal({**MINIMAL, key: 1})
    assert (error.code, error.values["field"]) == ("unknown_key", shown)
    assert nearest in (None, error.values["nearest"])


def test_an_unknown_key_of_a_keyframe_is_named_with_its_index():
    error = refusal({"keyframes": [{"section": 0, "prompt": "a", "imgae": "b.png"}]})
    assert error.values == {"field": "keyframes[0].imgae", "nearest": "image"}


def test_only_sections_of_the_video_have_keyframes():
    for section_seconds, sections in ((1, 3), (0.5, 7)):
        values = MINIMAL | {"seconds": 4, "section_seconds": section_seconds}
        inside = values | {"keyframes": [{"section": sections - 1, "prompt": "a"}]}
        assert GenerationRequest.from_dict(inside).num_sections == sections
        error = refusal(values | {"keyframes": [{"section": sections, "prompt": "a"}]})
        assert error.values == {"section": sections, "sections": sections, "last": sections - 1}


@pytest.mark.parametrize(("size", "nearest"), [(100, 96), (104, 96), (105, 112), (17, 16), (2047, 2048)])
def test_an_indivisible_size_names_the_nearest_divisible(size, nearest):
    error = refusal(MINIMAL | {"width": size, "height": 64})
    assert (error.code, error.values["nearest"]) == ("size_not_multiple", nearest)


# -- JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *((text, "request_not_json") for text in ("", "\0" * 100, "{'prompt': 1}", '{"prompt": "no end')),
        *((text, "request_not_json") for text in ('{"prompt": "a",}', '{"prompt": "a"} and more')),
        *((text, "request_too_deep") for text in ("[" * 99_000 + "]" * 99_000, '{"a": ' * 90_000)),
        *(('{"prompt": "猫"}'.encode(name), "request_not_utf8") for name in ("utf-16", "shift-jis")),
        ('{"prompt": "café"}'.encode("latin-1"), "request_not_utf8"),
        ("[" + "1," * 100_000 + "1]", "request_too_full"),
    ],
    ids=range(12),
)
def test_text_that_is_no_json_is_refused(text, code):
    for form in (text, text.encode()) if isinstance(text, str) else (text,):
        with pytest.raises(InputError) as caught:
            parse_request_json(form)
        assert caught.value.code == code


@pytest.mark.parametrize("depth", [10, 500, 900, 990, 5000])
def test_values_nested_to_any_depth_are_refused(depth):
    with pytest.raises(InputError) as caught:
        GenerationRequest.from_dict(parse_request_json('{"prompt": ' + "[" * depth + "]" * depth + "}"))
    assert caught.value.code in ("not_a_text", "request_too_deep")


def test_the_last_value_of_a_doubled_key_counts():
    assert parse_request_json('{"steps": "x", "steps": 2}') == {"steps": 2}


def test_a_request_survives_its_json():
    rng = random.Random(0)
    for _ in range(300):
        request = random_request(rng)
        text = json.dumps(request.to_dict(), ensure_ascii=rng.random() < 0.5)
        assert GenerationRequest.from_dict(parse_request_json(text)) == request
        assert GenerationRequest.from_dict(parse_request_json(text.encode("utf-8-sig"))) == request

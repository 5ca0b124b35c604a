"""The page's fields as plain values: the request that they make, and the values that come back out of one."""

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import MAX_SEED, GenerationRequest, Keyframe
from tests.support.pictures import PICTURE
from webui.eichi_utils.form import (
    DEFAULTS,
    FIELDS,
    HIDDEN_SETTINGS,
    UNKNOWN_PICTURE,
    Pictures,
    Row,
    Values,
    count_rows,
    from_request,
    section_image,
    to_requests,
)

CHANGED: Values = {
    "prompt": " A cat yawns.\n\u732b ",
    "seconds": 3.5,
    "section_seconds": 0.5,
    "loop": True,
    "all_padding": 1.5,
    "end_frame_strength": 0.7,
    "random_seed": False,
    "teacache": False,
    "teacache_threshold": 0.15,
    "steps": 25,
    "distilled_guidance_scale": 6.5,
    "crf": 23,
    "resolution": 480,
    "keep_section_videos": True,
    "save_section_stills": True,
    "embed_request": False,
}
"""Another value than its default for every field that a request holds by itself."""
HIDDEN: Values = {
    "negative_prompt": "blurry",
    "guidance_scale": 2.0,
    "guidance_rescale": 0.5,
    "width": 320,
    "height": 256,
    "close_after": 1,
}
START = Pictures(start=(UNKNOWN_PICTURE,))


def form(**changes: Any) -> Values:
    return DEFAULTS | changes


def request_of(values: Values, pictures: Pictures = START, **hidden: Any) -> GenerationRequest:
    (request,) = to_requests(values, pictures, hidden)
    return request


def back(request: GenerationRequest, folder: Path = Path()) -> Values:
    return from_request(request, folder)[0]


def keyframes_of(values: Values, rows: dict[int, Row]) -> list[Keyframe]:
    return list(request_of(form(use_keyframes=True) | values, Pictures(("cat.png",), None, rows)).keyframes)


def refused(values: Values, pictures: Pictures = START) -> tuple[str, object]:
    """The code of the refusal, and the field that it names."""
    with pytest.raises(InputError) as caught:
        to_requests(values, pictures, {})
    return caught.value.code, caught.value.values.get("field")


# -- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_changed_field_changes_the_request_and_comes_back(name):
    values = form(**{name: CHANGED[name]})
    request = request_of(values)
    assert request != request_of(DEFAULTS)
    assert back(request) == values | {"copy_keyframes": False}


def test_every_field_is_covered_by_these_tests():
    switched = {"seed", "all_padding", "use_keyframes", "copy_keyframes", "join"}
    assert CHANGED.keys() | switched == FIELDS.keys()
    assert set(HIDDEN_SETTINGS) == HIDDEN.keys()
    assert all(CHANGED[name] != FIELDS[name].default for name in CHANGED)
    assert all(FIELDS[name].takes(value) for name, value in (DEFAULTS | CHANGED).items())


def test_a_full_request_comes_back_equal(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 48), "blue").save(buffer, "WEBP", lossless=True)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    rows = {0: Row(uri, "A."), 2: Row(None, "C.")}
    values = form(**CHANGED | {"seconds": 4, "all_padding": 2.5})
    values |= {"seed": str(MAX_SEED), "use_keyframes": True, "copy_keyframes": False}
    request = request_of(values, Pictures((uri,), uri, rows), **HIDDEN)
    restored, pictures, hidden = from_request(request, tmp_path / "made" / "here")
    assert (restored, hidden) == (values, HIDDEN)
    again = request_of(restored, pictures, **hidden)
    (path,) = {again.start_image, again.end_image, again.keyframes[0].image}
    assert again == request.map_images(lambda _: path)
    assert Path(str(path)).read_bytes() == buffer.getvalue()
    assert [*(tmp_path / "made" / "here").iterdir()] == [Path(str(path))], "no half file is left"
    assert Path(str(path)).suffix == ".webp"


@pytest.mark.parametrize(("size", "kept"), [((64, 96), {"height", "width"}), ((512, 768), set())])
def test_a_size_is_hidden_only_where_the_resolution_differs(cat, size, kept):
    request = request_of(form(resolution=640), Pictures((str(cat),)), height=size[0], width=size[1])
    assert from_request(request, Path())[2].keys() == kept


# -- pictures ----------------------------------------------------------------------------------------


def test_each_start_image_makes_a_request_else_the_same():
    assert request_of(DEFAULTS) == GenerationRequest(start_image=UNKNOWN_PICTURE), "an untouched form"
    requests = to_requests(form(), Pictures(("a.png", "b.png", "c.png"), "end.png"), {})
    assert [request.start_image for request in requests] == ["a.png", "b.png", "c.png"]
    assert {dataclasses.replace(request, start_image=None) for request in requests} == {
        GenerationRequest(end_image="end.png")
    }


def test_a_start_image_that_continues_a_video_is_joined_to_it_in_its_size(tmp_path):
    video = tmp_path / "first.mp4"
    write_mp4(video, [np.zeros((48, 80, 3), np.uint8)] * 2, crf=30, comment="")
    pictures = Pictures(("last.png",), previous=video)
    joined = request_of(form(resolution=640), pictures, width=96, height=96)
    assert (joined.previous_video, joined.width, joined.height) == (str(video), 80, 48)
    alone = request_of(form(join=False), pictures)
    assert (alone.previous_video, alone.width) == (None, None)
    video.write_bytes(b"")
    assert refused(form(), pictures)[0] == "video_broken"


def test_a_form_without_start_image_is_refused():
    assert refused(form(), Pictures(end="end.png")) == ("choose_start_image", None)
    for seconds, row in ((1, {0: Row(prompt="x")}), (2, {2: Row("beyond.png")})):
        values = form(use_keyframes=True, seconds=seconds)
        assert refused(values, Pictures(rows=row)) == ("choose_start_image", None)
    request = request_of(form(use_keyframes=True), Pictures(rows={0: Row("row.png")}))
    assert (request.start_image, request.keyframes) == (None, (Keyframe(0, "row.png"),))


@pytest.mark.parametrize("kind", ["image/../../x", "image/", "image", "", "x/%2e%2e", "image/p n"])
def test_an_embedded_picture_cannot_leave_the_folder(tmp_path, kind):
    uri = to_data_uri(PICTURE).replace("image/webp", kind)
    _, pictures, _ = from_request(GenerationRequest(start_image=uri), tmp_path)
    assert [*tmp_path.iterdir()] == [Path(pictures.start[0])]
    with pytest.raises(InputError, match="data_uri_broken"):
        from_request(GenerationRequest(start_image=f"data:{kind};base64,???"), tmp_path)


# -- values ------------------------------------------------------------------------------------------


SEEDS = {
    None: ["0", "7", str(2**53 + 1), str(MAX_SEED), " 42 ", "007"],
    "not_a_whole_number": [
        *("-1", "1.5", "1e5", "abc", "1_000", "0x1f", "1 2", "\uff11\uff12", "\u0663", None),
        "9" * 10**6,
    ],
    "number_missing": ["", " "],
    "out_of_range": [str(MAX_SEED + 1), "9" * 19],
}
"""Seeds by the error that they are; None where they are none."""


@pytest.mark.parametrize("code", SEEDS)
def test_a_seed_is_taken_to_its_last_digit_or_refused_by_name(code):
    for seed in SEEDS[code]:
        values = form(random_seed=False, seed=seed)
        if code is not None:
            assert refused(values) == (code, "seed")
            continue
        request = request_of(values)
        assert request.seed == int(seed)
        assert back(request)["seed"] == str(int(seed))


@pytest.mark.parametrize("padding", [0, 0.2, 10])
def test_switched_off_fields_do_not_matter(padding):
    off = form(random_seed=True, seed="nonsense", all_padding=None)
    assert request_of(off) == request_of(DEFAULTS)
    assert keyframes_of({"use_keyframes": False}, {0: Row("a.png")}) == []
    request = request_of(form(all_padding=padding))
    assert request.all_padding == back(request)["all_padding"] == padding


@pytest.mark.parametrize(
    "name", sorted((DEFAULTS.keys() & GenerationRequest().to_dict()) - {"seed", "all_padding"})
)
def test_an_emptied_field_is_refused_by_name(name):
    values = form() | {name: None}
    assert refused(values if name != "prompt" else values | {name: 7})[1] == name


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True, [], {}, "16"])
@pytest.mark.parametrize("name", sorted(FIELDS))
def test_only_values_of_a_fields_own_kind_are_remembered(name, value):
    is_text, is_flag = isinstance(FIELDS[name].default, str), isinstance(FIELDS[name].default, bool)
    fits = (is_text and value == "16") or (is_flag and value is True)
    fits = fits or (name == "all_padding" and value is None)
    assert FIELDS[name].takes(value) == fits


# -- the rows of the sections ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "section_seconds", "rows"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 3), (1, 0.5, 2), (0.5, 0.5, 1), (120, 1, 100), (120, 0.5, 200)],
)
def test_there_is_a_row_for_each_section(seconds, section_seconds, rows):
    values = form(seconds=seconds, section_seconds=section_seconds)
    assert count_rows(values | {"steps": None, "seed": "x"}) == rows == request_of(values).num_sections
    wrong = (None, "", "x", 0, -1, 121, float("nan"), [], True)
    assert {count_rows(values | {"seconds": length}) for length in wrong} == {0}


def test_empty_rows_and_rows_beyond_the_length_are_left_out():
    rows = {0: Row("a.png"), 1: Row("b.png", " B. "), 2: Row("c.png", "C."), 99: Row("d.png")}
    assert keyframes_of({"seconds": 2}, rows) == [Keyframe(0, "a.png"), Keyframe(1, "b.png", "B.")]
    empty = {0: Row(), 1: Row(prompt="  \n"), 2: Row(prompt=" C. ")}
    assert keyframes_of({"seconds": 4}, empty) == [Keyframe(2, None, "C.")]


@pytest.mark.parametrize(
    ("rows", "pictures"),
    [
        ({}, [None] * 4),
        ({0: Row("red")}, ["red", None, "red", None]),
        ({1: Row("blue")}, [None, "blue", None, "blue"]),
        ({0: Row("red"), 1: Row("blue"), 2: Row("own")}, ["red", "blue", "own", "blue"]),
        ({2: Row("own")}, [None, None, "own", None]),
    ],
)
def test_red_and_blue_go_to_even_and_odd_sections(rows, pictures):
    assert [section_image(rows, section, copies=True) for section in range(4)] == pictures
    keyframes = keyframes_of({"seconds": 4.8, "loop": True}, rows)
    for own in ({}, {"loop": True, "copy_keyframes": False}):
        kept = keyframes_of({"seconds": 4.8, **own}, rows)
        assert {keyframe.section: Row(keyframe.image) for keyframe in kept} == rows, "not copied"
    by_section = {keyframe.section: keyframe.image for keyframe in keyframes}
    assert [by_section.get(section) for section in range(4)] == pictures


def test_copied_pictures_come_back_as_each_rows_own(tmp_path, cat):
    picture = str(cat)
    rows = {0: Row(picture, "A."), 1: Row(picture)}
    values = form(use_keyframes=True, loop=True, seconds=4)
    request = request_of(values, Pictures((picture,), picture, rows))
    assert [keyframe.prompt for keyframe in request.keyframes] == ["A.", "", ""], "prompts are not copied"
    restored, pictures, _ = from_request(request, tmp_path)
    assert restored == values | {"copy_keyframes": False}
    rows |= {2: Row(picture)}
    assert pictures == Pictures((picture,), picture, rows)
    assert request_of(restored, pictures) == request

"""The page's fields as plain values: what request they make, and what comes back out of one."""

import base64
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.request import MAX_SEED, GenerationRequest, Keyframe
from webui.eichi_utils.form import (
    DEFAULTS,
    FIELDS,
    HIDDEN_SETTINGS,
    LOOP,
    Pictures,
    Row,
    Values,
    count_rows,
    from_request,
    normalized,
    section_image,
    to_requests,
)
from webui.eichi_utils.page.estimate import request_size

CHANGED: Values = {
    "prompt": " A cat yawns.\n\u732b ",
    "seconds": 3.5,
    "section_seconds": 0.5,
    "mode": LOOP,
    "use_all_padding": True,
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
}
"""Another value than its default for every field that a request holds by itself."""
START = Pictures(start=("cat.png",))


def form(**changes: Any) -> Values:
    return DEFAULTS | changes


def request_of(values: Values, pictures: Pictures = START, **extras: Any) -> GenerationRequest:
    (request,) = to_requests(values, pictures, extras)
    return request


def back(request: GenerationRequest, folder: Path = Path()) -> Values:
    return from_request(request, folder, lambda _: (640, 608)).values


def keyframes_of(values: Values, rows: dict[int, Row]) -> list[Keyframe]:
    return list(request_of(form(use_keyframes=True) | values, Pictures(("cat.png",), None, rows)).keyframes)


def refused(values: Values, pictures: Pictures = START) -> tuple[str, object]:
    """The code of the refusal, and the field that it names."""
    with pytest.raises(InputError) as caught:
        to_requests(values, pictures, {})
    return caught.value.code, caught.value.values.get("field")


@pytest.fixture
def picture(tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.new("RGB", (96, 64), "red").save(path)
    return str(path)


# -- there and back ----------------------------------------------------------------------------------


def test_an_untouched_form_makes_the_request_that_says_nothing():
    assert request_of(DEFAULTS) == GenerationRequest(start_image="cat.png")


@pytest.mark.parametrize("name", sorted(CHANGED))
def test_a_changed_field_changes_the_request_and_comes_back(name):
    values = form(**{name: CHANGED[name]})
    request = request_of(values)
    assert request != request_of(DEFAULTS)
    assert back(request) == values | {"copy_keyframes": False}


def test_all_fields_changed_at_once_come_back():
    values = form(**CHANGED, seed="12345", all_padding=2.5)
    assert back(request_of(values)) == values | {"copy_keyframes": False}


def test_every_field_is_covered_by_these_tests():
    switched = {"seed", "all_padding", "use_keyframes", "copy_keyframes"}
    assert CHANGED.keys() | switched == FIELDS.keys()
    assert all(CHANGED[name] != FIELDS[name].default for name in CHANGED)
    assert all(FIELDS[name].takes(value) for name, value in (DEFAULTS | CHANGED).items())


def test_a_form_survives_the_json_of_a_request_file():
    request = request_of(form(**CHANGED, seed="7"))
    assert back(GenerationRequest.from_dict(request.to_dict())) == back(request)


def test_an_emptied_text_is_an_empty_text():
    assert normalized(form(prompt=None, seed=None)) == form(prompt="", seed="")


# -- pictures ----------------------------------------------------------------------------------------


def test_each_of_several_start_images_makes_a_request_that_is_else_the_same():
    requests = to_requests(form(), Pictures(("a.png", "b.png", "c.png"), "end.png"), {})
    assert [request.start_image for request in requests] == ["a.png", "b.png", "c.png"]
    assert {dataclasses.replace(request, start_image=None) for request in requests} == {
        GenerationRequest(end_image="end.png")
    }


def test_a_form_without_start_image_is_refused():
    assert refused(form(), Pictures()) == ("choose_start_image", None)
    assert refused(form(), Pictures(end="end.png")) == ("choose_start_image", None)
    assert refused(form(use_keyframes=True), Pictures(rows={0: Row(prompt="x")}))[0] == "choose_start_image"


def test_a_picture_of_a_section_stands_for_a_start_image():
    request = request_of(form(use_keyframes=True), Pictures(rows={0: Row("row.png")}))
    assert (request.start_image, request.keyframes) == (None, (Keyframe(0, "row.png"),))


def test_the_start_and_end_image_come_back(tmp_path, picture):
    request = request_of(form(), Pictures((picture,), picture))
    restored = from_request(request, tmp_path, request_size)
    assert restored.pictures == Pictures((picture,), picture, {})


def test_a_picture_inside_a_request_becomes_a_file_with_its_bytes(tmp_path, picture):
    content = Path(picture).read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    request = request_of(form(use_keyframes=True), Pictures((uri,), uri, {0: Row(uri)}))
    restored = from_request(request, tmp_path / "made" / "here", request_size).pictures
    names = {*restored.start, restored.end, restored.rows[0].image}
    (name,) = names
    assert Path(str(name)).read_bytes() == content
    assert (Path(str(name)).suffix, Path(str(name)).parent) == (".png", tmp_path / "made" / "here")
    assert len(list((tmp_path / "made" / "here").iterdir())) == 1, "no half file is left"


@pytest.mark.parametrize("kind", ["image/../../x", "image/", "image", "", "x/%2e%2e", "image/p n"])
def test_the_kind_of_a_picture_inside_a_request_cannot_lead_out_of_the_folder(tmp_path, kind):
    uri = f"data:{kind};base64,{base64.b64encode(b'x').decode()}"
    restored = from_request(GenerationRequest(start_image=uri), tmp_path, lambda _: (1, 1))
    assert Path(restored.pictures.start[0]).parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [Path(restored.pictures.start[0]).name]


def test_a_damaged_picture_inside_a_request_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        from_request(GenerationRequest(start_image="data:image/png;base64,???"), tmp_path, lambda _: (1, 1))
    assert caught.value.code == "data_uri_broken"


# -- seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["0", "7", str(2**53 + 1), str(MAX_SEED), " 42 ", "007"])
def test_a_seed_is_taken_to_its_last_digit(seed):
    request = request_of(form(random_seed=False, seed=seed))
    assert request.seed == int(seed)
    assert back(request)["seed"] == str(int(seed))


@pytest.mark.parametrize(
    "seed",
    ["", " ", "-1", "1.5", "1e5", "abc", "1_000", "\uff11\uff12", "None", "\u0663", "1 2", "0x1f", None],
)
def test_a_seed_that_is_no_number_is_refused_by_name(seed):
    assert refused(form(random_seed=False, seed=seed)) == ("not_a_whole_number", "seed")


@pytest.mark.parametrize("seed", [str(MAX_SEED + 1), "9" * 19])
def test_a_seed_that_is_too_large_is_refused_by_name(seed):
    assert refused(form(random_seed=False, seed=seed)) == ("out_of_range", "seed")


def test_a_seed_of_a_million_digits_is_refused_at_once():
    assert refused(form(random_seed=False, seed="9" * 10**6)) == ("not_a_whole_number", "seed")


def test_the_seed_does_not_matter_while_it_is_random():
    assert request_of(form(random_seed=True, seed="nonsense")).seed is None
    assert back(request_of(form(random_seed=True)))["random_seed"] is True


# -- padding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 0.2, 1, 3.0, 10])
def test_all_padding_is_what_it_says_while_it_is_switched_on(padding):
    request = request_of(form(use_all_padding=True, all_padding=padding))
    assert request.all_padding == padding
    assert (back(request)["use_all_padding"], back(request)["all_padding"]) == (True, padding)


def test_all_padding_does_not_matter_while_it_is_switched_off():
    assert request_of(form(use_all_padding=False, all_padding=None)).all_padding is None
    assert back(request_of(form()))["use_all_padding"] is False


# -- what no field takes -----------------------------------------------------------------------------

NUMBERS = [
    "seconds",
    "section_seconds",
    "end_frame_strength",
    "teacache_threshold",
    "steps",
    "distilled_guidance_scale",
    "crf",
    "resolution",
]


@pytest.mark.parametrize("name", NUMBERS)
def test_an_emptied_number_is_refused_by_name(name):
    assert refused(form(**{name: None}))[1] == name


def test_an_emptied_padding_is_refused_by_name():
    assert refused(form(use_all_padding=True, all_padding=None))[1] == "all_padding"


@pytest.mark.parametrize("value", ["16", [], {}, True, float("nan"), float("inf"), -1, 10**400])
@pytest.mark.parametrize("name", NUMBERS)
def test_nonsense_in_a_number_is_refused_by_name(name, value):
    assert refused(form(**{name: value}))[1] == name


@pytest.mark.parametrize("value", [None, "yes", 1, 0, []])
@pytest.mark.parametrize("name", ["teacache", "keep_section_videos", "save_section_stills"])
def test_nonsense_in_a_switch_is_refused_by_name(name, value):
    assert refused(form(**{name: value})) == ("not_true_or_false", name)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True, [], {}, "16"])
@pytest.mark.parametrize("name", sorted(FIELDS))
def test_only_values_of_a_fields_own_kind_are_remembered(name, value):
    is_text, is_flag = isinstance(FIELDS[name].default, str), isinstance(FIELDS[name].default, bool)
    fits = (is_text and name != "mode" and value == "16") or (is_flag and value is True)
    assert FIELDS[name].takes(value) == fits


# -- the rows of the sections ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "section_seconds", "rows"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 3), (1, 0.5, 2), (0.5, 0.5, 1), (120, 1, 100), (120, 0.5, 200)],
)
def test_there_is_a_row_for_each_section_of_the_length(seconds, section_seconds, rows):
    values = form(seconds=seconds, section_seconds=section_seconds)
    assert count_rows(values) == rows == request_of(values).num_sections


@pytest.mark.parametrize("seconds", [None, "", "x", 0, -1, 121, float("nan"), [], True])
def test_there_are_no_rows_where_the_length_is_no_length(seconds):
    assert count_rows(form(seconds=seconds)) == 0


def test_nonsense_elsewhere_leaves_the_rows_alone():
    assert count_rows(form(seconds=2, steps=None, seed="x", crf="y")) == 2


def test_rows_beyond_the_length_are_not_used():
    rows = {0: Row("a.png"), 1: Row("b.png", "B."), 2: Row("c.png", "C."), 99: Row("d.png")}
    assert keyframes_of({"seconds": 2}, rows) == [Keyframe(0, "a.png"), Keyframe(1, "b.png", "B.")]


def test_a_picture_beyond_the_length_stands_for_no_start_image():
    pictures = Pictures(rows={2: Row("c.png")})
    assert refused(form(use_keyframes=True, seconds=2), pictures)[0] == "choose_start_image"


def test_empty_rows_are_left_out():
    rows = {0: Row(), 1: Row(prompt="  \n"), 2: Row(prompt=" C. ")}
    assert keyframes_of({"seconds": 4}, rows) == [Keyframe(2, None, "C.")]


def test_rows_are_not_used_while_they_are_switched_off():
    assert keyframes_of({"use_keyframes": False}, {0: Row("a.png")}) == []


@pytest.mark.parametrize(
    ("rows", "pictures"),
    [
        ({}, [None] * 4),
        ({0: Row("red")}, ["red", None, "red", None]),
        ({1: Row("blue")}, [None, "blue", None, "blue"]),
        ({0: Row("red"), 1: Row("blue")}, ["red", "blue", "red", "blue"]),
        ({0: Row("red"), 1: Row("blue"), 2: Row("own")}, ["red", "blue", "own", "blue"]),
        ({0: Row("red"), 3: Row("own")}, ["red", None, "red", "own"]),
        ({2: Row("own")}, [None, None, "own", None]),
    ],
)
def test_red_and_blue_go_to_the_even_and_odd_sections_that_have_no_picture(rows, pictures):
    assert [section_image(rows, section, copies=True) for section in range(4)] == pictures
    keyframes = keyframes_of({"seconds": 4.8, "mode": LOOP}, rows)
    by_section = {keyframe.section: keyframe.image for keyframe in keyframes}
    assert [by_section.get(section) for section in range(4)] == pictures


@pytest.mark.parametrize("values", [{"mode": "normal"}, {"mode": LOOP, "copy_keyframes": False}])
def test_red_and_blue_stay_in_their_rows_outside_of_a_loop_and_where_that_is_switched_off(values):
    rows = {0: Row("red"), 1: Row("blue")}
    assert keyframes_of({"seconds": 4, **values}, rows) == [Keyframe(0, "red"), Keyframe(1, "blue")]


def test_prompts_are_never_copied_to_other_rows():
    keyframes = keyframes_of({"seconds": 4, "mode": LOOP}, {0: Row("red", "Only here.")})
    assert [keyframe.prompt for keyframe in keyframes] == ["Only here.", ""]


def test_copied_pictures_come_back_as_each_rows_own(tmp_path, picture):
    rows = {0: Row(picture, "A."), 1: Row(picture)}
    values = form(use_keyframes=True, mode=LOOP, seconds=4)
    request = request_of(values, Pictures((picture,), None, rows))
    restored = from_request(request, tmp_path, request_size)
    assert restored.values == values | {"copy_keyframes": False}
    assert restored.pictures.rows == {0: Row(picture, "A."), 1: Row(picture), 2: Row(picture)}
    assert request_of(restored.values, restored.pictures) == request


# -- what the page has no field for ------------------------------------------------------------------

HIDDEN: Values = {
    "negative_prompt": "blurry",
    "guidance_scale": 2.0,
    "guidance_rescale": 0.5,
    "width": 320,
    "height": 256,
    "close_after": 1,
}


def test_what_the_page_has_no_field_for_is_kept_as_it_came(picture):
    request = request_of(form(seconds=4), Pictures((picture,)), **HIDDEN)
    assert {key: getattr(request, key) for key in HIDDEN_SETTINGS} == HIDDEN
    restored = from_request(request, Path(), request_size)
    assert restored.hidden_settings == HIDDEN
    assert to_requests(restored.values, restored.pictures, restored.hidden_settings) == [request]


def test_nothing_is_kept_of_a_request_that_the_page_can_show():
    assert from_request(request_of(form(**CHANGED)), Path(), lambda _: (1, 1)).hidden_settings == {}


@pytest.mark.parametrize(("size", "kept"), [((64, 96), {"height", "width"}), ((512, 768), set())])
def test_a_size_is_mentioned_only_where_the_resolution_gives_another(picture, size, kept):
    request = request_of(form(resolution=640), Pictures((picture,)), height=size[0], width=size[1])
    assert from_request(request, Path(), request_size).hidden_settings.keys() == kept


def test_every_key_of_a_request_is_a_field_a_picture_or_kept():
    pictures = {"start_image", "end_image", "keyframes"}
    elsewhere = {"loop": "mode"}
    for key in GenerationRequest().to_dict():
        assert key in FIELDS or key in HIDDEN_SETTINGS or key in pictures or key in elsewhere, key


def test_a_request_with_everything_comes_back_equal(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 48), "blue").save(buffer, "WEBP", lossless=True)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    rows = {0: Row(uri, "A."), 2: Row(None, "C.")}
    values = form(**CHANGED | {"seconds": 4}, seed=str(MAX_SEED), use_keyframes=True, copy_keyframes=False)
    request = request_of(values, Pictures((uri,), uri, rows), **HIDDEN)
    restored = from_request(request, tmp_path, request_size)
    again = request_of(restored.values, restored.pictures, **restored.hidden_settings)
    (path,) = {again.start_image, again.end_image, again.keyframes[0].image}
    assert again == request.map_images(lambda image: image and path)

"""The request embedded in our files comes back equal, from anywhere, without the photographs."""

import dataclasses
import json
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.embedded_request import (
    LEFT_OUT,
    load_request,
    pack_request,
    read_packed,
    to_comment,
    write_png,
)
from diffusers_helper.media.images import read_image, read_size
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import MAX_PROMPT, GenerationRequest
from diffusers_helper.version import VERSION
from tests.support.random_requests import random_request

SEED = 99
BLACK = np.zeros((32, 32, 3), np.uint8)


def pictures_of(request: GenerationRequest, height: int = 32, width: int = 48) -> dict[str, np.ndarray]:
    """A different picture for each name in a request."""
    names = [request.start_image, request.end_image, *(k.image for k in request.keyframes)]
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in names if name is not None
    }


def embed(request: GenerationRequest, pictures: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Write a request into an MP4, its start picture and a still, as a job does."""
    (given := folder / "given").mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(given / name)
    placed = request.map_images(lambda name: str(given / name))
    packed = pack_request(placed, {str(given / name): picture for name, picture in pictures.items()}, SEED)
    start = pictures[request.start_picture]
    mp4, png, still = folder / "a.mp4", folder / "a.png", folder / "a_section_001.png"
    write_mp4(mp4, [start], crf=30, comment=to_comment(packed))
    write_png(png, start, to_comment(packed, start))
    write_png(still, np.zeros_like(start), to_comment(packed))
    return [mp4, png, still]


def assert_same_video(loaded: GenerationRequest, request: GenerationRequest, pictures: dict[str, np.ndarray]):
    """All that decides the video is equal: values, the pictures' pixels, and where each is used."""
    height, width = pictures[request.start_picture].shape[:2]
    unnamed = [
        each.map_images(lambda _: "a picture")
        for each in (loaded, dataclasses.replace(request, seed=SEED, width=width, height=height))
    ]
    assert unnamed[0] == unnamed[1]
    pairs = [(loaded.start_image, request.start_image), (loaded.end_image, request.end_image)]
    pairs += [(a.image, b.image) for a, b in zip(loaded.keyframes, request.keyframes, strict=True)]
    for found, original in pairs:
        if original is not None:
            assert np.array_equal(read_image(found), pictures[original])


ONE = GenerationRequest.from_dict({"start_image": "a.png", "prompt": "猫"})
KEYFRAMES_ONLY = GenerationRequest.from_dict(
    {"seconds": 2, "keyframes": [{"section": 0, "image": "a.png"}, {"section": 1, "image": "b.png"}]}
)


@pytest.mark.parametrize(
    "request_", [ONE, KEYFRAMES_ONLY, *map(random_request, map(random.Random, range(12)))]
)
def test_a_request_comes_back_from_every_kind_of_file(tmp_path, request_):
    pictures = pictures_of(request_)
    for path in embed(request_, pictures, tmp_path):
        loaded = load_request(path)
        assert_same_video(loaded, request_, pictures)
        assert (loaded.start_image is None) == (request_.start_image is None)


def test_many_pictures_are_kept_in_the_size_of_the_video_only(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers_helper.media.embedded_request.WHOLE_CHARACTERS", 1)
    Image.new("RGB", (60, 60), "red").save(tmp_path / "a.png")
    Image.new("RGB", (70, 70), "blue").save(tmp_path / "b.png")
    values = {"start_image": str(tmp_path / "a.png"), "end_image": str(tmp_path / "b.png")}
    request = GenerationRequest.from_dict(values)
    pictures = {name: np.zeros((32, 32, 3), np.uint8) for name in values.values()}
    packed = pack_request(request, pictures, SEED)
    assert [read_size(packed[key]) for key in values] == [(60, 60), (32, 32)]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("別の場所 %d", "moved 猫"),
        *([("http:", "http:a"), (os.fsdecode(b"caf\xe9"), "a")] if os.name == "posix" else []),
    ],
)
def test_a_moved_and_renamed_file_holds_its_request(tmp_path, monkeypatch, folder, name):
    (elsewhere := tmp_path / folder / "deep").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    for path in embed(ONE, pictures_of(ONE), tmp_path):
        moved = path.rename(elsewhere / f"{name}{path.suffix}")
        for again in (moved, Path(moved.name)):
            assert_same_video(load_request(again), ONE, pictures_of(ONE))


@pytest.mark.slow
def test_large_pictures_and_long_prompts_come_back(tmp_path):
    request = dataclasses.replace(ONE, prompt="猫" * MAX_PROMPT)  # more text than Pillow reads by itself
    pictures = pictures_of(request, 2048, 2048)
    for path in embed(request, pictures, tmp_path)[:2]:
        assert path.stat().st_size > 12 * 2**20
        assert_same_video(load_request(path), request, pictures)


def test_the_files_are_plain_pictures_and_videos_with_a_comment(tmp_path):
    mp4, png, _ = embed(ONE, pictures_of(ONE), tmp_path)
    with av.open(str(mp4)) as container:
        assert json.loads(container.metadata["comment"])["prompt"] == "猫"
    with Image.open(png) as image:
        assert np.array_equal(np.asarray(image), pictures_of(ONE)["a.png"])
        assert json.loads(image.info["comment"])["prompt"] == "猫"
    assert "data:image" not in png.read_bytes().decode("latin-1")  # not embedded in itself


def test_an_mp4_whose_end_is_missing_holds_its_request(tmp_path):
    mp4, *_ = embed(ONE, pictures_of(ONE), tmp_path)
    mp4.write_bytes(mp4.read_bytes()[:-200])
    assert_same_video(load_request(mp4), ONE, pictures_of(ONE))


def test_a_comment_too_large_for_a_request_is_not_ours(tmp_path, monkeypatch):
    mp4, *_ = embed(ONE, pictures_of(ONE), tmp_path)
    monkeypatch.setattr("diffusers_helper.media.embedded_request.MAX_REQUEST_BYTES", 100)
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(mp4)


def test_a_file_is_known_by_its_content_not_its_name(tmp_path):
    mp4, png, _ = embed(ONE, pictures_of(ONE), tmp_path)
    assert_same_video(load_request(mp4.rename(tmp_path / "b.png")), ONE, pictures_of(ONE))
    assert_same_video(load_request(png.rename(tmp_path / "c.json")), ONE, pictures_of(ONE))
    (text := tmp_path / "d.mp4").write_text('{"start_image": "e.png"}')
    assert load_request(text).start_image == str(tmp_path / "e.png")


FOREIGN = ["", "A cat", "[]", "{}", '{"steps": 4}', "null", "[" * 5000, '{"seed": ', "caf#"]
FOREIGN += ['{"seed": 1, "prompt": "a cat", "video_length": 81}', '{"seed": "x", "steps": 30}']
FOREIGN += ['{"seed": 1, "prompt": "a cat", "steps": 20, "width": 64, "height": 64}']


@pytest.mark.parametrize("comment", FOREIGN)
def test_comments_of_other_programs_are_rejected(tmp_path, comment):
    path = tmp_path / "a.mp4"
    write_mp4(path, [BLACK], crf=30, comment=comment)
    path.write_bytes(path.read_bytes().replace(b"caf#", b"caf\xe9"))  # in another encoding
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(path)


def test_a_comment_with_common_keys_alone_makes_no_picture_ours(tmp_path):
    write_png(tmp_path / "a.png", BLACK, json.dumps({"seed": 1, "prompt": "a cat", "steps": 20}))
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(tmp_path / "a.png")


COMFY = {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 8, "model": ["4", 0]}}}
OTHERS = {
    "Wan2GP": {"prompt": "a", "resolution": "832x480", "video_length": 81, "seed": 1, "model_type": "i2v"},
    "Wan2GP queue": [{"id": 1, "params": {"prompt": "a"}}],
    "ComfyUI API": COMFY,
    "ComfyUI prompt": {"prompt": COMFY},
    "ComfyUI workflow": {"last_node_id": 9, "nodes": [], "links": [], "version": 0.4},
    "A1111 API": {"prompt": "a", "negative_prompt": "", "steps": 20, "cfg_scale": 7, "sampler_name": "Euler"},
    "A1111 common": {"prompt": "a", "seed": -1, "steps": 20, "width": 512, "height": 512},
    "InvokeAI": {"positive_prompt": "a", "seed": 1, "model": {"key": "x"}, "app_version": "5.0", "steps": 30},
    "Fooocus": {"Prompt": "a", "Styles": "[]", "Steps": 30, "Seed": "1", "Resolution": "(1, 1)"},
    "Fooocus common": {"Prompt": "a", "Steps": 30, "Seed": "1"},
    "SD.Next": {"prompt": "a", "sampler_index": 0, "hr_scale": 2, "steps": 20},
    "image to video": {"prompt": "a", "start_image": "u", "end_image": "v", "duration": 5, "cfg_scale": 0.5}
    | {"aspect_ratio": "16:9"},
    "unknown tool": {"start_image": "a", "camera": "pan", "lora_strength": 1},
    "package": {"name": "a", "version": "1.0", "dependencies": {}},
    "many keys": {f"key{number}": number for number in range(20_000)},
    "list": [],
    "null": None,
    "text": "a cat",
    "empty": {},
}


@pytest.mark.parametrize("name", OTHERS)
def test_json_of_other_programs_is_called_so(tmp_path, name):
    (path := tmp_path / "a.json").write_text(json.dumps(OTHERS[name]))
    with pytest.raises(InputError) as caught:
        load_request(path, {"resolution": 192})
    assert (caught.value.code, caught.value.values) == ("not_made_by_us", {"path": str(path)})


def test_an_object_of_many_keys_is_not_searched_for_typing_errors(tmp_path, monkeypatch):
    monkeypatch.setattr("difflib.get_close_matches", lambda *_: pytest.fail("this takes a minute"))
    (path := tmp_path / "a.json").write_text(json.dumps({f"sed{number}": 1 for number in range(1000)}))
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(path)


@pytest.mark.parametrize("content", ["[" * 3000, '{"a": ' * 3000 + "1" + "}" * 3000, f"[{'1,' * 200_000}1]"])
def test_json_as_no_request_is_built_is_of_another_program(tmp_path, content):
    (path := tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(path)


@pytest.mark.parametrize(
    ("values", "code", "field"),
    [
        ({"start_image": "a.png", "stpes": 4}, "unknown_key", "stpes"),
        ({"start_imge": "a.png"}, "unknown_key", "start_imge"),
        ({"start_image": "a.png", "prompt": "x", "fps": 24}, "unknown_key", "fps"),
        ({"start_image": "a.png", "prompt": "x", "sampler": "euler"}, "unknown_key", "sampler"),
        ({"prompt": "x", "seed": 1, "secods": 4}, "unknown_key", "secods"),
        ({"start_image": "a.png", "steps": "many"}, "not_a_whole_number", "steps"),
        ({"end_image": "a.png", "keyframe": []}, "unknown_key", "keyframe"),
        ({"prompt": "x"}, "no_start_image", None),
    ],
)
def test_a_mistake_in_a_request_of_ours_is_named(tmp_path, values, code, field):
    (path := tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        load_request(path)
    assert (caught.value.code, caught.value.values.get("field")) == (code, field)


def test_a_bad_value_in_one_of_our_files_is_named(tmp_path):
    write_png(tmp_path / "a.png", BLACK, to_comment(GenerationRequest("a.png").to_dict() | {"steps": "many"}))
    with pytest.raises(InputError, match=r"^not_a_whole_number: .*field='steps'"):
        load_request(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a" * 300, "../a.mp4", "a.mp4\0", "\ud800", 5, ["a.mp4"]])
def test_the_name_of_no_video_beside_it_leaves_a_file_readable(tmp_path, name):
    mp4, *_ = embed(ONE, pictures_of(ONE), tmp_path)
    with av.open(str(mp4)) as container:
        comment = json.loads(container.metadata["comment"])
    write_mp4(mp4, [BLACK], crf=30, comment=json.dumps(comment | {"previous_video": name}))
    assert load_request(mp4).previous_video is None


def test_the_files_name_the_version_that_wrote_them(tmp_path):
    mp4, png, _ = embed(ONE, pictures_of(ONE), tmp_path)
    with av.open(str(mp4)) as container, Image.open(png) as image:
        comments = container.metadata["comment"], image.info["comment"]
    for comment in comments:
        assert json.loads(comment)["made_by"] == f"Endframe Ichi {VERSION}"
    assert "made_by" not in (read_packed(mp4) or {"made_by": ""})
    (copied := tmp_path / "copied.json").write_text(comments[0], "utf-8")
    assert_same_video(load_request(copied), ONE, pictures_of(ONE))


@pytest.mark.parametrize("comment", ["Endframe Ichi", "Endframe Ichi 0.0.9", LEFT_OUT])
def test_a_file_without_a_request_is_known_whatever_version_wrote_it(tmp_path, comment):
    write_png(tmp_path / "a.png", BLACK, comment)
    with pytest.raises(InputError, match="settings_left_out"):
        load_request(tmp_path / "a.png")
    write_mp4(tmp_path / "a.mp4", [BLACK], crf=40, comment=comment)
    assert read_packed(tmp_path / "a.mp4") == {}


def test_a_file_too_large_for_a_request_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(300 * 2**20)  # takes no room on the disk
    with pytest.raises(InputError, match="request_too_large"):
        load_request(tmp_path / "a.json")

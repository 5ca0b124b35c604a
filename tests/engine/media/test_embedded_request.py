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
from diffusers_helper.media.embedded_request import load_request, pack_request, without_start, write_png
from diffusers_helper.media.images import read_image
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import GenerationRequest
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
    packed = pack_request(request, pictures, SEED)
    start = pictures[request.start_picture]
    mp4, png, still = folder / "a.mp4", folder / "a.png", folder / "a_section_001.png"
    write_mp4(mp4, [start], crf=30, comment=json.dumps(packed, ensure_ascii=False))
    write_png(png, start, without_start(packed))
    write_png(still, np.zeros_like(start), packed)
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


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("別の場所 %d", "moved 猫"),
        *([("http:", "http:a"), (os.fsdecode(b"caf\xe9"), "a")] * (os.name == "posix")),
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
    request = dataclasses.replace(ONE, prompt="猫" * (30 * 2**20))  # more text than Pillow reads by itself
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


def test_a_file_is_known_by_its_content_not_its_name(tmp_path):
    mp4, png, _ = embed(ONE, pictures_of(ONE), tmp_path)
    assert_same_video(load_request(mp4.rename(tmp_path / "b.png")), ONE, pictures_of(ONE))
    assert_same_video(load_request(png.rename(tmp_path / "c.json")), ONE, pictures_of(ONE))
    (text := tmp_path / "d.mp4").write_text('{"start_image": "e.png"}')
    assert load_request(text).start_image == str(tmp_path / "e.png")


FOREIGN = ["", "A cat", "[]", "{}", '{"steps": 4}', "null", "[" * 5000, '{"seed": ', "caf#"]
FOREIGN += ['{"seed": 1, "prompt": "a cat", "video_length": 81}', '{"seed": "x", "steps": 30}']


@pytest.mark.parametrize("comment", FOREIGN)
def test_comments_of_other_programs_are_rejected(tmp_path, comment):
    path = tmp_path / "a.mp4"
    write_mp4(path, [BLACK], crf=30, comment=comment)
    path.write_bytes(path.read_bytes().replace(b"caf#", b"caf\xe9"))  # in another encoding
    with pytest.raises(InputError, match="not_made_by_us"):
        load_request(path)


def test_a_bad_value_in_one_of_our_files_is_named(tmp_path):
    write_png(tmp_path / "a.png", BLACK, GenerationRequest("a.png").to_dict() | {"steps": "many"})
    with pytest.raises(InputError, match=r"^not_a_whole_number: .*field='steps'"):
        load_request(tmp_path / "a.png")


def test_a_file_too_large_for_a_request_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(300 * 2**20)  # takes no room on the disk
    with pytest.raises(InputError, match="request_too_large"):
        load_request(tmp_path / "a.json")

"""The request inside our files: it comes back equal, from anywhere, without the photographs."""

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


def pictures_of(request: GenerationRequest, height: int = 32, width: int = 48) -> dict[str, np.ndarray]:
    """A different picture for each name in a request."""
    names = [request.start_image, request.end_image, *(k.image for k in request.keyframes)]
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for name in names if name is not None
    }


def record(request: GenerationRequest, pictures: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Write a request into an MP4 and a PNG, as a job does."""
    packed = pack_request(request, pictures, SEED)
    start = pictures[request.start_picture]
    mp4, png, still = folder / "a.mp4", folder / "a.png", folder / "a_section_001.png"
    write_mp4(mp4, [start], crf=30, comment=json.dumps(packed, ensure_ascii=False))
    write_png(png, start, without_start(packed))
    write_png(still, np.zeros_like(start), packed)
    return [mp4, png, still]


def assert_same_video(loaded: GenerationRequest, request: GenerationRequest, pictures: dict[str, np.ndarray]):
    """Everything that decides the video is equal: values, the pictures' pixels, and which is used where."""
    height, width = pictures[request.start_picture].shape[:2]
    unnamed = [
        each.map_images(lambda name: None if name is None else "a picture")
        for each in (loaded, dataclasses.replace(request, seed=SEED, width=width, height=height))
    ]
    assert unnamed[0] == unnamed[1]
    pairs = [(loaded.start_image, request.start_image), (loaded.end_image, request.end_image)]
    pairs += [(a.image, b.image) for a, b in zip(loaded.keyframes, request.keyframes, strict=True)]
    for found, original in pairs:
        if original is not None:
            assert np.array_equal(read_image(found), pictures[original])


def test_any_request_comes_back_from_every_kind_of_file(tmp_path):
    rng = random.Random(1)
    for number in range(40):
        (folder := tmp_path / str(number)).mkdir()
        request = random_request(rng)
        pictures = pictures_of(request)
        for path in record(request, pictures, folder):
            assert_same_video(load_request(path), request, pictures)


def test_a_request_comes_back_after_its_file_was_moved_and_renamed(tmp_path, monkeypatch):
    request = GenerationRequest.from_dict(
        {"start_image": "a.png", "end_image": "b.png", "keyframes": [{"section": 0, "image": "c.png"}]}
    )
    pictures = pictures_of(request)
    (elsewhere := tmp_path / "別の場所 %d" / "deep").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    for path in record(request, pictures, tmp_path):
        moved = path.rename(elsewhere / f"moved 猫{path.suffix}")
        for name in (moved, Path(moved.name)):
            assert_same_video(load_request(name), request, pictures)


def test_keyframes_without_a_start_picture_come_back(tmp_path):
    frames = [{"section": 0, "image": "a.png"}, {"section": 1, "image": "b.png"}]
    request = GenerationRequest.from_dict({"seconds": 2, "keyframes": frames})
    pictures = pictures_of(request)
    for path in record(request, pictures, tmp_path):
        loaded = load_request(path)
        assert loaded.start_image is None
        assert_same_video(loaded, request, pictures)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes on POSIX only")
def test_a_folder_whose_name_is_no_text_does_not_matter(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request)
    (folder := tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    for path in record(request, pictures, folder):
        assert_same_video(load_request(path), request, pictures)


def test_large_pictures_come_back(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request, 2048, 2048)
    for path in record(request, pictures, tmp_path):
        assert path.stat().st_size > 12 * 2**20
        assert_same_video(load_request(path), request, pictures)


def test_a_request_longer_than_a_reader_of_png_usually_takes_comes_back(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png", "prompt": "猫" * (30 * 2**20)})
    pictures = pictures_of(request)
    mp4, png, _ = record(request, pictures, tmp_path)
    for path in (mp4, png):
        loaded = load_request(path)
        assert loaded.prompt == request.prompt
        assert np.array_equal(read_image(loaded.start_image), pictures["a.png"])


def test_the_png_is_a_plain_picture_of_the_start(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request)
    _, png, _ = record(request, pictures, tmp_path)
    assert np.array_equal(np.asarray(Image.open(png)), pictures["a.png"])
    assert "data:image" not in png.read_bytes().decode("latin-1")  # not once more inside itself


def test_the_mp4_is_made_again_even_when_its_end_is_missing(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request)
    mp4, *_ = record(request, pictures, tmp_path)
    mp4.write_bytes(mp4.read_bytes()[:-200])
    assert_same_video(load_request(mp4), request, pictures)


def test_a_request_file_is_known_by_its_content_not_its_name(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request)
    mp4, png, _ = record(request, pictures, tmp_path)
    assert_same_video(load_request(mp4.rename(tmp_path / "b.png")), request, pictures)
    assert_same_video(load_request(png.rename(tmp_path / "c.json")), request, pictures)
    (text := tmp_path / "d.mp4").write_text('{"start_image": "e.png"}')
    assert load_request(text).start_image == str(tmp_path / "e.png")


def test_a_file_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    request = GenerationRequest.from_dict({"start_image": "a.png"})
    pictures = pictures_of(request)
    mp4, *_ = record(request, pictures, tmp_path)
    monkeypatch.chdir(tmp_path)
    mp4.rename("http:a.mp4")
    assert_same_video(load_request(Path("http:a.mp4")), request, pictures)


@pytest.mark.parametrize(
    "comment", ["", "A cat", "[]", "{}", '{"steps": 4}', "null", "[" * 5000, '{"seed": ']
)
def test_comments_of_others_are_refused(tmp_path, comment):
    frame = np.zeros((32, 32, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", [frame], crf=30, comment=comment)
    with pytest.raises(InputError) as caught:
        load_request(tmp_path / "a.mp4")
    assert caught.value.code == "not_made_by_us"


def test_a_comment_in_another_encoding_is_refused(tmp_path):
    frame = np.zeros((32, 32, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", [frame], crf=30, comment="caf#, a comment of another program")
    content = (tmp_path / "a.mp4").read_bytes().replace(b"caf#", b"caf\xe9")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_request(tmp_path / "a.mp4")
    assert caught.value.code == "not_made_by_us"


def test_a_bad_value_in_one_of_our_files_is_named(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8), {"seed": 1, "steps": "many"})
    with pytest.raises(InputError) as caught:
        load_request(tmp_path / "a.png")
    assert (caught.value.code, caught.value.values["field"]) == ("not_a_whole_number", "steps")


def test_a_file_that_is_too_large_for_a_request_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(300 * 2**20)  # takes no room on the disk
    with pytest.raises(InputError) as caught:
        load_request(tmp_path / "a.json")
    assert caught.value.code == "request_too_large"


def test_the_comment_is_where_other_programs_look_for_it(tmp_path):
    request = GenerationRequest.from_dict({"start_image": "a.png", "prompt": "猫"})
    mp4, png, _ = record(request, pictures_of(request), tmp_path)
    with av.open(str(mp4)) as container:
        assert json.loads(container.metadata["comment"])["prompt"] == "猫"
    with Image.open(png) as image:
        assert json.loads(image.info["comment"])["prompt"] == "猫"

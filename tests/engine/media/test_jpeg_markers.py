"""JPEG files that end too early tell how much of the picture is missing."""

import functools
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.images import read_image
from diffusers_helper.media.jpeg_markers import missing_part, parse

OPTIONS = {
    "baseline": {},
    "full chroma": {"subsampling": 0},
    "restarts": {"restart_marker_blocks": 7},
    "a restart each row": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "progressive, full chroma": {"progressive": True, "subsampling": 0},
}
SIZES = [(64, 64), (131, 97), (400, 300)]


COFFEE = Path(__file__).parents[3] / "examples/coffee.png"


@functools.cache
def photograph(width: int, height: int, mode: str) -> Image.Image:
    with Image.open(COFFEE) as image:
        return image.convert("RGB").resize((width, height)).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), "JPEG", **options)
    return buffer.getvalue()


def cut(whole: bytes, part: float) -> bytes:
    """The file up to this part of what stands behind the first scan's header."""
    start = parse(whole).scans[0].data
    return whole[: start + int((len(whole) - 2 - start) * part)]


def decoded(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_mark_is_read_as_it_is(tmp_path, name, mode):
    whole = encoded(photograph(97, 64, mode), **OPTIONS[name])
    for ending, content in (("whole", whole), ("cut", whole[:-2]), ("half", whole[:-1])):
        (tmp_path / ending).write_bytes(content)
        assert np.array_equal(read_image(str(tmp_path / ending)), read_image(str(tmp_path / "whole")))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", [name for name in OPTIONS if "progressive" not in name])
def test_the_missing_rows_are_found(name, mode, size):
    whole = encoded(photograph(*size, mode), **OPTIONS[name])
    right = np.asarray(decoded(whole)).reshape(size[1], -1).astype(int)
    row = 100 * (16 if mode == "RGB" and "subsampling" not in OPTIONS[name] else 8) / size[1]
    for part in (0.95, 0.7, 0.4):
        missing, mended = missing_part(cut(whole, part), decoded)
        differs = np.any(np.asarray(decoded(mended)).reshape(size[1], -1) != right, axis=1)
        # Chroma that is scaled up changes one row more.
        rows = 100 - 100 * (np.argmax(differs) + 1) / size[1]
        assert rows - row <= 100 * missing <= rows + 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", [name for name in OPTIONS if "progressive" in name])
def test_the_missing_passes_are_estimated(name, mode, size):
    whole = encoded(photograph(*size, mode), **OPTIONS[name])
    for part in (0.95, 0.7, 0.4):
        missing, _ = missing_part(cut(whole, part), decoded)
        assert abs(missing - (1 - part)) <= 0.15


def test_a_half_can_be_read_less_cannot(tmp_path):
    whole, path = encoded(photograph(400, 300, "RGB")), tmp_path / "cut.jpg"
    path.write_bytes(cut(whole, 0.6))
    got = read_image(str(path), partial=True)
    path.write_bytes(whole)
    assert np.array_equal(got[:144], read_image(str(path))[:144])
    assert np.ptp(got[224:]) == 0  # grey
    path.write_bytes(cut(whole, 0.4))
    with pytest.raises(InputError, match="image_cut"):
        read_image(str(path), partial=True)


@pytest.mark.parametrize(("bytes_more", "code"), [(-4, "image_broken"), (0, "image_cut")])
def test_a_jpeg_that_ends_before_its_pixels_is_refused(tmp_path, bytes_more, code):
    path, whole = tmp_path / "cut.jpg", encoded(photograph(64, 64, "RGB"))
    path.write_bytes(whole[: parse(whole).scans[0].data + bytes_more])
    with pytest.raises(InputError) as caught:
        read_image(str(path), partial=True)
    assert caught.value.code == code
    assert caught.value.values.get("missing", 100) == 100


@pytest.mark.parametrize("zeros", [500, 10_000, 100_000])
def test_zeros_where_a_download_stopped_are_missing(tmp_path, zeros):
    whole, path = encoded(photograph(400, 300, "RGB")), tmp_path / "cut.jpg"
    path.write_bytes(cut(whole, 0.6) + bytes(zeros))
    with pytest.raises(InputError) as caught:
        read_image(str(path))
    assert caught.value.values["missing"] == pytest.approx(40, abs=8)

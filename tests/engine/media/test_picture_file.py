"""Pictures of rare kinds and huge sizes are read, or refused in a sentence."""

import io
import struct
import sys
import threading
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media import picture_file
from diffusers_helper.media.images import read_image, read_size
from tests.support.pictures import noise, png_chunk, png_file
from tests.support.tiff import tiff_file

GREY = np.full((32, 48), 40, np.uint8)
GREY[:, 24:] = 200
COLOURS = np.full((32, 48, 3), (200, 60, 30), np.uint8)
COLOURS[:, 24:] = (10, 120, 250)
OPAQUE = np.full_like(GREY, 255)
DEEP = np.uint16(257)
TIFFS = {
    "8 bits": (GREY, 1, GREY),
    "8 bits, 0 is white": (GREY, 0, 255 - GREY),
    "16 bits": (GREY * DEEP, 1, GREY),
    "16 bits, 0 is white": (GREY * DEEP, 0, 255 - GREY),
    "floats": (GREY / np.float32(255), 1, GREY),
    "floats, 0 is white": (GREY / np.float32(255), 0, 255 - GREY),
    "RGB": (COLOURS, 2, COLOURS),
    "RGB of 16 bits": (COLOURS * DEEP, 2, COLOURS),
    "RGBA of 16 bits": (np.dstack([COLOURS, OPAQUE]) * DEEP, 2, COLOURS),
    "CMYK": (255 - np.dstack([COLOURS, OPAQUE]), 5, COLOURS),
    "CMYK of 16 bits": ((255 - np.dstack([COLOURS, OPAQUE])) * DEEP, 5, COLOURS),
}
"""The values, what they mean, and the picture."""


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def written(folder: Path, content: bytes) -> str:
    (folder / "picture").write_bytes(content)
    return str(folder / "picture")


def error_of(path: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read_image(path)
    return caught.value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize("name", TIFFS)
def test_tiff_files_of_many_kinds(tmp_path, name, tile, order):
    values, photometric, expected = TIFFS[name]
    got = read_image(written(tmp_path, tiff_file(values, photometric, order, tile=tile)))
    assert np.array_equal(got, expected if expected.ndim == 3 else np.dstack([expected] * 3))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [1, DEEP])
def test_tiff_files_with_a_plane_for_each_colour(tmp_path, order, depth):
    path = written(tmp_path, tiff_file(COLOURS * depth, 2, order, planes=True))
    assert np.array_equal(read_image(path), COLOURS)


@pytest.mark.parametrize("factor", [1, 257, 2**24 + 2**16 + 2**8 + 1])
def test_whole_numbers_of_32_bits_are_read_without_a_sign(tmp_path, factor):
    path = written(tmp_path, tiff_file(GREY * np.uint32(factor), 1))
    assert np.array_equal(read_image(path), np.dstack([GREY] * 3))


@pytest.mark.parametrize("values", [COLOURS / np.float32(255), np.dstack([GREY, OPAQUE]) * DEEP])
def test_tiff_files_of_other_kinds_are_refused_by_name(tmp_path, values):
    photometric = 2 if values.shape[2] == 3 else 1
    assert error_of(written(tmp_path, tiff_file(values, photometric))).code == "image_kind"


@pytest.mark.parametrize(
    ("marker", "bits", "kind"), [(0xC3, 8, "lossless JPEG"), (0xC1, 12, "JPEG, 12 bits")]
)
def test_rare_kinds_of_jpeg_are_refused_by_name(tmp_path, marker, bits, kind):
    content = bytearray(encoded(COLOURS, "JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 1], content[place + 4] = marker, bits
    error = error_of(written(tmp_path, bytes(content)))
    assert (error.code, error.values["kind"]) == ("image_kind", kind)


def test_heic_without_its_package_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "OPEN", {kind: entry for kind, entry in Image.OPEN.items() if kind != "HEIF"})
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = written(tmp_path, struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(40))
    assert error_of(path).code == "image_heic"


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_heic_is_turned_once(tmp_path, orientation):
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, encoded(COLOURS, "HEIF", quality=100, chroma=444, exif=exif.tobytes()))
    expected = {1: COLOURS, 3: COLOURS[::-1, ::-1], 6: np.rot90(COLOURS, -1)}[orientation]
    assert read_size(path) == expected.shape[:2]
    assert np.abs(read_image(path).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "WEBP"])
def test_other_files_that_are_cut_are_called_so(tmp_path, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    content = encoded(noise(64, 64), kind)
    assert error_of(written(tmp_path, content[: len(content) // 2])).code == "image_broken"


def test_pictures_read_at_the_same_time_leave_all_settings_alone(tmp_path, monkeypatch):
    """The second one begins in the middle of the first and would end after it."""
    path = written(tmp_path, tiff_file(COLOURS * DEEP, 2, planes=True))
    has_begun, may_end, open_picture = threading.Event(), threading.Event(), picture_file._open_picture

    def open_slowly(source: IO[bytes], shown: str) -> picture_file.Picture:
        has_begun.set()
        may_end.wait(20)
        return open_picture(source, shown)

    before, results = list(warnings.filters), []
    second = threading.Thread(target=lambda: results.append(read_image(path)))
    with picture_file.opened(path):
        monkeypatch.setattr(picture_file, "_open_picture", open_slowly)
        second.start()
        has_begun.wait(0.2)
    may_end.set()
    second.join()
    assert warnings.filters == before
    assert np.array_equal(results[0], COLOURS)


def test_a_tiff_with_too_few_strips_is_damaged(tmp_path):
    content = tiff_file(GREY, 1)
    height = content.index(struct.pack("<HHIHH", 257, 3, 1, 32, 0)) + 8
    content = content[:height] + struct.pack("<H", 64) + content[height + 2 :]
    assert error_of(written(tmp_path, content)).code == "image_broken"


def test_a_length_that_no_memory_holds_is_damage(tmp_path):
    content = encoded(COLOURS, "JPEG2000")
    header = content.index(b"jp2h") - 4
    length = struct.pack(">I4sQ", 1, b"jp2h", 2**62)
    assert (
        error_of(written(tmp_path, content[:header] + length + content[header + 8 :])).code == "image_broken"
    )


# -- huge pictures --------------------------------------------------------------------------------------


def resized_header(content: bytes, width: int, height: int) -> bytes:
    """A JPEG file that claims another size."""
    place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


@pytest.mark.parametrize(
    ("size", "read", "progressive"),
    [
        ((13_000, 13_000), (13_000, 13_000), False),
        ((16_320, 12_240), (8_160, 6_120), False),
        ((16_320, 12_240), (8_160, 6_120), True),
        ((16_321, 12_241), (8_161, 6_121), True),
        ((28_000, 28_000), (7_000, 7_000), False),
    ],
)
def test_a_huge_jpeg_has_a_part_of_its_size(tmp_path, size, read, progressive):
    path = written(tmp_path, resized_header(encoded(COLOURS, "JPEG", progressive=progressive), *size))
    assert read_size(path) == read[::-1]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_huge_jpeg_is_decoded_at_a_part_of_its_size(tmp_path, monkeypatch, options):
    picture = np.kron(noise(6, 8), np.ones((40, 40, 1), np.uint8))
    path = written(tmp_path, encoded(picture, "JPEG", quality=95, subsampling=0, **options))
    monkeypatch.setattr(picture_file, "MAX_WHOLE_PIXELS", picture.size // 3 - 1)
    got = read_image(path)
    assert got.shape == (*read_size(path), 3) == (120, 160, 3)
    assert np.abs(got[10::20, 10::20].astype(int) - noise(6, 8)).max() <= 6
    monkeypatch.setattr(picture_file, "MAX_WHOLE_PIXELS", picture.size // 3 // 20)
    assert read_image(path).shape == (30, 40, 3)
    Path(path).write_bytes(Path(path).read_bytes()[:-2])
    assert read_image(path).shape == (30, 40, 3)


def test_what_does_not_fit_into_memory_is_refused_with_its_megapixels(tmp_path):
    jpeg = encoded(COLOURS, "JPEG")
    progressive = encoded(COLOURS, "JPEG", progressive=True)
    files = {
        "colours.png": (png_file(20_000, 20_000, png_chunk(b"IDAT", b"")), 400, 178),
        "grey.png": (png_file(30_000, 30_000, png_chunk(b"IDAT", b""), kind=0), 900, 178),
        "deep.png": (png_file(30_000, 30_000, png_chunk(b"IDAT", b""), kind=0, bits=16), 900, 178),
        "baseline.jpg": (resized_header(jpeg, 60_000, 60_000), 3600, 1073),
        "progressive.jpg": (resized_header(progressive, 60_000, 60_000), 3600, 238),
        "colours.bmp": (bmp_header(20_000, 20_000), 400, 178),
    }
    for name, (content, megapixels, most) in files.items():
        error = error_of(written(tmp_path, content))
        assert error.code == "image_too_large", name
        assert (error.values["megapixels"], error.values["most"]) == (megapixels, most), name


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)

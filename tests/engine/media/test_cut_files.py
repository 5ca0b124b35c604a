"""Files whose end is missing, or zeros that a download reserved, are told; what only looks so is read."""

import base64
import functools
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.images import read_image
from tests.support.pictures import noise
from tests.support.tiff import tiff_file

COFFEE = Path(__file__).parents[3] / "examples/coffee.png"
KINDS = {
    "WebP": ("WEBP", {}),
    "WebP without loss": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {}),
    "HEIC": ("HEIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "PPM": ("PPM", {}),
}
"""The formats whose decoders take zeros for pixels."""
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNS"
    "Mj5aYVpQYEpRUk//yQALCAAgACABAREA/8wABgAQEAX/2gAIAQEAAD8A0mXBNt+qsldIjkYmfHLPHoaXUMcBOnAUHsW7KC+S3BjTddKD"
    "6LdPQzjj+n3rGJWJAj/WUWswf9qdY5lkpXhs+/NW6g98nP/Z"
)
"""A JPEG with arithmetic coding: Pillow's radial gradient in 32x32."""


@functools.cache
def photograph() -> Image.Image:
    with Image.open(COFFEE) as image:
        return image.convert("RGB").resize((201, 150))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def read(folder: Path, content: bytes, partial: bool = False) -> np.ndarray:
    (folder / "picture").write_bytes(content)
    return read_image(str(folder / "picture"), partial)


def error_of(folder: Path, content: bytes, partial: bool = False) -> InputError:
    with pytest.raises(InputError) as caught:
        read(folder, content, partial)
    return caught.value


def zeroed(whole: bytes, part: float) -> bytes:
    """The file with zeros behind this part of it."""
    there = int(len(whole) * part)
    return whole[:there] + bytes(len(whole) - there)


@pytest.mark.parametrize("part", [0.89, 0.71, 0.31])
@pytest.mark.parametrize("name", KINDS)
def test_zeros_at_the_end_are_missing(tmp_path, name, part):
    kind, options = KINDS[name]
    whole = encoded(photograph(), kind, **options)
    error = error_of(tmp_path, zeroed(whole, part))
    assert (error.code, error.values["missing"]) == ("image_cut", pytest.approx(100 * (1 - part), abs=3))
    if part < 0.5:
        assert error_of(tmp_path, zeroed(whole, part), partial=True).code == "image_cut"
    else:
        got, right = read(tmp_path, zeroed(whole, part), partial=True), read(tmp_path, whole)
        there = slice(-80, None) if kind == "BMP" else slice(80)
        assert np.abs(got[there].astype(int) - right[there]).mean() < 2


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
@pytest.mark.parametrize(("kind", "options"), [
    ("GIF", {}), ("JPEG2000", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "packbits"}), ("TIFF", {"compression": "tiff_deflate"}),
])  # fmt: skip
def test_files_whose_decoders_notice_are_damaged(tmp_path, kind, options, part):
    whole = encoded(photograph(), kind, **options)
    for content in (zeroed(whole, part), whole[: int(len(whole) * part)]):
        assert error_of(tmp_path, content).code == "image_broken"


def test_a_tiff_that_loses_the_end_of_its_tags_is_cut(tmp_path):
    """Its tables of JPEG are behind the pixels, which Pillow decodes without them as grey."""
    whole = encoded(photograph(), "TIFF", compression="jpeg")
    assert error_of(tmp_path, whole[:-153] + bytes(153)).code == "image_cut"


def spot(sides: tuple[int, int] = (300, 200)) -> Image.Image:
    """A disc on black."""
    x, y = np.meshgrid(*(np.linspace(-1.5, 1.5, side) for side in sides))
    disc = (x**2 + y**2 < 1)[..., None]
    return Image.fromarray(np.where(disc, noise(*x.shape) // 2 + 100, 0).astype(np.uint8))


def dark_right() -> Image.Image:
    picture = noise(60, 300) // 2 + 100
    picture[:40, 150:] = picture[40:] = 0
    return Image.fromarray(picture)


def slanted() -> Image.Image:
    """A shape at the right edge, whose last row ends before it."""
    picture = noise(60, 300) // 2 + 100
    picture[:, :100] = picture[40:] = picture[39, 280:] = picture[0, 280:] = 0
    return Image.fromarray(picture)


def dark_corner() -> Image.Image:
    picture = noise(60, 300) // 2 + 100
    picture[-1, 200:] = picture[0, 200:] = 0
    return Image.fromarray(picture)


def letterboxed() -> Image.Image:
    image = Image.new("RGB", (201, 190))
    image.paste(photograph(), (0, 20))
    return image


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "make", [spot, dark_right, slanted, dark_corner, letterboxed, lambda: Image.new("RGB", (200, 200))]
)
def test_black_at_the_end_is_black(tmp_path, kind, make):
    image = make()
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read(tmp_path, encoded(image, kind, **options)), np.asarray(image))


def test_a_bmp_from_the_top_downwards(tmp_path):
    image = photograph()
    whole = bytearray(encoded(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP"))
    whole[22:26] = (-image.height).to_bytes(4, "little", signed=True)
    assert np.array_equal(read(tmp_path, bytes(whole)), np.asarray(image))
    assert error_of(tmp_path, zeroed(bytes(whole), 0.71)).values["missing"] == 30


def test_zeros_of_16_bits_are_missing_too(tmp_path):
    whole = tiff_file(np.asarray(photograph().convert("L")).astype(np.uint16) * 257 + 1, 1)
    assert error_of(tmp_path, zeroed(whole, 0.605)).values["missing"] == 40


@pytest.mark.parametrize("lossless", [False, True])
def test_webp_files_of_plain_areas_end_in_zeros(tmp_path, lossless):
    picture = np.full((2500, 2500, 3), 255, np.uint8)
    picture[:60] = noise(60, 2500)
    content = encoded(Image.fromarray(picture), "WEBP", lossless=lossless, method=0 if lossless else 4)
    assert content.endswith(bytes(64))
    assert read(tmp_path, content).shape == picture.shape


@pytest.mark.parametrize("name", [*KINDS, "GIF", "PNG", "JPEG"])
def test_zeros_behind_the_end_are_no_harm(tmp_path, name):
    kind, options = KINDS.get(name, (name, {}))
    whole = encoded(photograph(), kind, **options)
    assert np.array_equal(read(tmp_path, whole + bytes(500)), read(tmp_path, whole))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIF"])
def test_exif_data_of_zeros_are_no_harm(tmp_path, kind):
    start = b"" if kind == "WEBP" else b"MM\0*\0\0\0\x08"  # Pillow looks into the others
    whole = encoded(photograph(), kind, exif=b"Exif\0\0" + start + bytes(300))
    assert kind != "WEBP" or whole.endswith(bytes(300))
    assert read(tmp_path, whole).shape == (150, 201, 3)


def test_a_jpeg_with_arithmetic_coding(tmp_path):
    expected = np.asarray(Image.radial_gradient("L").resize((32, 32))).astype(int)
    assert np.abs(read(tmp_path, ARITHMETIC)[..., 0] - expected).max() < 20
    assert np.array_equal(read(tmp_path, ARITHMETIC[:-2]), read(tmp_path, ARITHMETIC))
    assert error_of(tmp_path, ARITHMETIC[:-40]).code == "image_cut"

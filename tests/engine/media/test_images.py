"""Pictures of every kind are read with their size and colours."""

import errno
import io
import random
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.media import picture_file
from diffusers_helper.media.images import read_image, read_size, to_data_uri
from diffusers_helper.media.picture_file import FORMATS
from tests.support.pictures import noise, png_chunk, png_file

WIDTH, HEIGHT = 24, 16
COLOURS = np.array([[[250, 10, 20], [30, 240, 50]], [[60, 70, 230], [200, 180, 100]]], dtype=np.uint8)
"""Four colours, each a quarter of `QUARTERS`: top left, top right, bottom left, bottom right."""
GREY_16 = np.array([[0, 257 * 90], [257 * 160 + 100, 65535]], dtype=np.uint16)
BEST = {
    ".webp": {"lossless": True, "exact": True},
    ".jpg": {"quality": 100, "subsampling": 0},
    ".jp2": {"irreversible": False},
    ".avif": {"quality": 100, "subsampling": "4:4:4"},
}
"""The options of lossy formats that keep the most, by ending."""


def quarters(colours: np.ndarray) -> np.ndarray:
    return colours.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)


QUARTERS = quarters(COLOURS)
PICTURE = Image.fromarray(QUARTERS)


def corners(picture: np.ndarray) -> np.ndarray:
    """The four colours of a picture of quarters, read in the middle of each."""
    height, width = picture.shape[:2]
    rows, columns = [height // 4, height * 3 // 4], [width // 4, width * 3 // 4]
    return picture[np.ix_(rows, columns)].astype(int)


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> str:
    image.save(folder / name, **(BEST.get(Path(name).suffix, {}) | options))
    return str(folder / name)


def grey(levels: list[list[float]], kind: type = np.uint8) -> Image.Image:
    return Image.fromarray(quarters(np.array(levels, kind)))


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), colour)


def half_transparent_palette() -> Image.Image:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 0])
    return image


def spread(levels: list[list[int]]) -> np.ndarray:
    """The colours of four greys."""
    return np.stack([levels] * 3, axis=-1)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# -- formats and modes ----------------------------------------------------------------------------------

PALETTE = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
TOP_LEFT = PALETTE.getpixel((1, 1))
WHITE_CORNER = np.where(np.arange(4).reshape(2, 2, 1) == 0, 255, COLOURS)
GREYS, BITS = [[0, 90], [160, 255]], [[False, True], [True, False]]
INKS = np.array([[[0, 255, 255, 0], [255, 0, 255, 0]], [[0, 0, 0, 128], [0, 0, 0, 0]]], np.uint8)
INKS_RGB = [[[255, 0, 0], [0, 255, 0]], [[127, 127, 127], [255, 255, 255]]]
HALF_ALPHA = Image.fromarray(np.dstack([QUARTERS, np.full((HEIGHT, WIDTH), 128, np.uint8)]))
LAB = ImageCms.profileToProfile(
    PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)
MODES = {
    "colours": (PICTURE, "png bmp ppm tif webp jpg jp2 avif", {}, COLOURS, 4),
    "lossy colours": (PICTURE, "webp jpg avif", {"quality": 95, "lossless": False}, COLOURS, 12),
    "palette": (PALETTE, "png gif bmp tif", {}, COLOURS, 0),
    "transparent palette colour": (PALETTE, "png gif", {"transparency": TOP_LEFT}, WHITE_CORNER, 0),
    "turned palette": (
        PALETTE.transpose(Image.Transpose.ROTATE_90), "png", {"exif": exif_of(6), "transparency": TOP_LEFT},
        WHITE_CORNER, 0
    ),
    "half transparent palette": (
        half_transparent_palette(), "png", {"transparency": bytes([255, 128])}, [227, 177, 127], 1
    ),
    "grey": (grey(GREYS), "png bmp tif pgm", {}, spread(GREYS), 0),
    "transparent grey": (plain("L", 90), "png", {"transparency": 90}, 255, 0),
    "another grey is transparent": (plain("L", 90), "png", {"transparency": 91}, 90, 0),
    "grey with alpha": (Image.merge("LA", [plain("L", 100), plain("L", 51)]), "png tif webp", {}, 224, 1),
    "alpha": (HALF_ALPHA, "png tif webp avif", {}, COLOURS * 0.502 + 255 * 0.498, 6),
    "1 bit": (grey(BITS, np.bool_), "png bmp tif gif pbm", {}, spread([[0, 255], [255, 0]]), 0),
    "16 bits": (Image.fromarray(quarters(GREY_16)), "png tif pgm jp2", {}, spread(GREYS), 0),
    "16 bits, all dark": (grey([[200, 200]] * 2, np.uint16), "png", {}, 1, 0),
    "16 bits, transparent grey": (
        Image.fromarray(quarters(GREY_16)), "png", {"transparency": 257 * 90},
        spread([[0, 255], [160, 255]]), 0
    ),
    "YCbCr": (PICTURE.convert("YCbCr"), "tif", {"compression": "tiff_lzw"}, COLOURS, 3),
    "Lab": (LAB, "tif", {}, COLOURS, 9),
    "CMYK JPEG": (Image.fromarray(quarters(INKS), "CMYK"), "jpg", {}, INKS_RGB, 8),
    "CMYK TIFF": (Image.fromarray(quarters(INKS), "CMYK"), "tif", {}, INKS_RGB, 1),
}  # fmt: skip
"""Pictures, the endings of files that hold them, options, and the colours to read, up to a difference."""


@pytest.mark.parametrize("name", MODES)
def test_each_format_and_mode_is_read_with_its_colours(tmp_path, name):
    image, endings, options, expected, tolerance = MODES[name]
    for ending in endings.split():
        picture = read_image(saved(tmp_path, image, f"a.{ending}", **options))
        assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert np.abs(corners(picture) - expected).max() <= tolerance, ending


def test_colours_of_16_bits_are_read(tmp_path):
    alpha = np.full((HEIGHT, WIDTH), 257 * 128, np.uint16)
    values = np.dstack([QUARTERS.astype(np.uint16) * 257, alpha])
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    (tmp_path / "a.png").write_bytes(png_file(WIDTH, HEIGHT, png_chunk(b"IDAT", rows), bits=16, kind=6))
    picture = read_image(str(tmp_path / "a.png"))
    assert np.abs(corners(picture) - (COLOURS * 0.502 + 255 * 0.498)).max() <= 1


def test_a_format_is_known_by_its_content_not_its_name(tmp_path):
    PICTURE.save(tmp_path / "photo.jpg", "PNG")
    assert np.array_equal(read_image(str(tmp_path / "photo.jpg")), QUARTERS)


def test_formats_that_this_pillow_lacks_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_file, "FORMATS", ("NO_SUCH_FORMAT", *FORMATS))
    assert read_image(saved(tmp_path, PICTURE, "a.png")).shape == (HEIGHT, WIDTH, 3)


def test_a_data_uri_is_read_like_a_file():
    picture = noise(40, 56)
    assert np.array_equal(read_image(to_data_uri(picture)), picture)
    assert read_size(to_data_uri(picture)) == (40, 56)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.int32, [[0, 90], [160, 255]], [[0, 90], [160, 255]]),
        (np.int32, [[0, 257 * 90], [257 * 160, 65535]], [[0, 90], [160, 255]]),
        (np.int32, [[-1000, -500], [0, 1000]], [[0, 64], [128, 255]]),
        (np.int32, [[0, 10**6], [5 * 10**5, 2 * 10**6]], [[0, 127], [64, 255]]),
        (np.int32, [[0, 0], [0, 0]], [[0, 0], [0, 0]]),
        (np.float32, [[0.0, 0.25], [0.5, 1.0]], [[0, 64], [128, 255]]),
        (np.float32, [[0, 90], [160, 255]], [[0, 90], [160, 255]]),
        (np.float32, [[0, 257 * 90], [257 * 160, 65535]], [[0, 90], [160, 255]]),
        (np.float32, [[np.nan, 0.5], [np.inf, -np.inf]], [[0, 128], [255, 0]]),
        (np.float32, [[np.nan, np.nan], [np.nan, np.nan]], [[0, 0], [0, 0]]),
        (np.float32, [[-1.0, 0.0], [0.5, 3.0]], [[0, 64], [96, 255]]),
    ],
)
def test_deep_grey_tiffs_are_read_by_the_range_of_their_values(tmp_path, kind, values, expected):
    picture = read_image(saved(tmp_path, grey(values, kind), "a.tif"))
    assert np.array_equal(corners(picture)[..., 2], expected)


# -- colour profiles ------------------------------------------------------------------------------------

DISPLAY_P3, LINEAR_GREY, PRINTER = (
    (Path(__file__).parents[2] / "support/profiles" / f"{name}.icc").read_bytes()
    for name in ("display_p3", "linear_grey", "printer")
)
"""Display P3's primaries with a gamma of 2.2; grey with a gamma of 1; a printer whose cyan alone is a middle
grey (L* 50), no ink white, and all else black."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ROSE, ROSE_IN_SRGB = (180, 100, 100), [194, 95, 97]
PROFILES = {
    "Display P3": (plain("RGB", ROSE), "png jpg webp tif", DISPLAY_P3, ROSE_IN_SRGB, 3),
    "Display P3, clipped": (plain("RGB", (255, 0, 0)), "png", DISPLAY_P3, [255, 0, 0], 1),
    "palette": (plain("RGB", ROSE).convert("P", palette=1), "png", DISPLAY_P3, ROSE_IN_SRGB, 3),
    "alpha": (plain("RGB", ROSE).convert("RGBA"), "png", DISPLAY_P3, ROSE_IN_SRGB, 3),
    "grey": (plain("L", 128), "png", LINEAR_GREY, 188, 2),
    "grey with alpha": (plain("L", 128).convert("LA"), "png", LINEAR_GREY, 188, 2),
    "CMYK": (plain("CMYK", (255, 0, 0, 0)), "jpg tif", PRINTER, 119, 3),
    "sRGB": (PICTURE, "png", SRGB, COLOURS, 0),
    "of another mode": (PICTURE, "png", PRINTER, COLOURS, 0),
    "broken": (PICTURE, "png", b"broken", COLOURS, 0),
    "empty": (PICTURE, "png", b"", COLOURS, 0),
    "cut short": (PICTURE, "png", DISPLAY_P3[:200], COLOURS, 0),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_colour_profile_is_applied_unless_it_is_broken(tmp_path, name):
    image, endings, profile, expected, tolerance = PROFILES[name]
    for ending in endings.split():
        picture = read_image(saved(tmp_path, image, f"a.{ending}", icc_profile=profile))
        assert np.abs(corners(picture) - expected).max() <= tolerance, ending


# -- orientation, and the first frame -------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_pictures_are_turned_upright_as_by_pillow(tmp_path, orientation, name):
    path = saved(tmp_path, PICTURE, name, exif=exif_of(orientation))
    picture = read_image(path)
    with Image.open(path) as image:
        assert np.array_equal(picture, np.asarray(ImageOps.exif_transpose(image)))
    assert read_size(path) == picture.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))


@pytest.mark.parametrize(("orientation", "size"), [(1, (HEIGHT, WIDTH)), (6, (WIDTH, HEIGHT))])
def test_a_png_with_its_orientation_at_the_end_has_its_upright_size(tmp_path, orientation, size):
    path = Path(saved(tmp_path, PICTURE, "a.png"))
    whole, exif = path.read_bytes(), exif_of(orientation).tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(whole[:-12] + png_chunk(b"eXIf", exif) + whole[-12:])
    assert read_size(str(path)) == read_image(str(path)).shape[:2] == size


@pytest.mark.parametrize(
    "exif",
    [
        b"nonsense",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0" + bytes(4),  # a text
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0" + bytes(4),  # 99
    ],
)
def test_a_damaged_orientation_is_ignored(tmp_path, exif):
    for name in ("a.jpg", "a.png"):
        picture = read_image(saved(tmp_path, PICTURE, name, exif=exif))
        assert np.abs(corners(picture) - COLOURS).max() <= 4


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_an_animation_gives_its_first_frame(tmp_path, name):
    first, *others = (plain("RGB", colour) for colour in ("red", "lime", "blue"))
    picture = read_image(saved(tmp_path, first, name, save_all=True, append_images=others, duration=100))
    assert np.abs(picture.astype(int) - [255, 0, 0]).max() <= 1


def test_a_picture_with_megabytes_of_text_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("comment", "x" * (70 * 2**20))
    assert np.array_equal(read_image(saved(tmp_path, PICTURE, "a.png", pnginfo=info)), QUARTERS)


# -- damaged files --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_a_damaged_picture_is_rejected_or_read(tmp_path, kind):
    """Bytes changed at random and files cut anywhere: an InputError or a picture, nothing else."""
    options = {"exif": exif_of(6)} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    Image.fromarray(noise(32, 32)).save(buffer := io.BytesIO(), kind, **options)
    whole, path, rng = buffer.getvalue(), tmp_path / "damaged", random.Random(kind)
    ends = set()
    for attempt in range(150):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            content[rng.randrange(min(len(content), rng.choice([60, 300, 10**6])))] = rng.randrange(256)
        path.write_bytes(content[: rng.randrange(1, len(content))] if attempt % 3 == 0 else content)
        try:
            ends.add(read_image(str(path)).ndim)
        except InputError as error:
            ends.add(error.code)
    known = {"image_broken", "not_an_image", "image_too_small", "image_too_large", "image_cut", "image_kind"}
    assert ends <= {3, *known}


def test_unusable_pictures_are_rejected_by_both_readers(tmp_path, recwarn):
    small = Path(saved(tmp_path, Image.new("RGB", (4, 40)), "small.png")).read_bytes()
    tif = Path(saved(tmp_path, PICTURE, "whole.tif")).read_bytes()
    files = {
        "text.png": (b"just some words", "not_an_image"),
        "empty.png": (b"", "image_empty"),
        "small.png": (small, "image_too_small"),
        "huge.png": (png_file(20_000, 20_000, png_chunk(b"IDAT", b"")), "image_too_large"),
        "endless.png": (png_file(2**31 - 1, 2**31 - 1), "image_too_large"),
        "nothing.png": (png_file(0, 0, png_chunk(b"IDAT", b"")), "not_an_image"),
        "file.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "not_an_image"),
        "cut.png": (small[:20], "image_broken"),
        "cut.tif": (tif[:-8], "image_broken"),
    }
    codes = {str(tmp_path / "none.png"): "image_missing", "": "image_not_a_file"}
    codes |= {"https://example.com/a.png": "image_missing", str(tmp_path): "image_not_a_file"}
    codes |= {"a" * 5000 + ".png": "image_unreadable", "data:image/png;base64,QUJD": "not_an_image"}
    codes |= dict.fromkeys(("data:image/png;base64,?", "data:image/png,abc"), "data_uri_broken")
    for name, (content, code) in files.items():
        (tmp_path / name).write_bytes(content)
        codes[str(tmp_path / name)] = code
    for name, code in codes.items():
        for read in (read_image, read_size):
            with pytest.raises(InputError) as caught:
                read(name)
            assert caught.value.code == code, name
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.avif"])
def test_a_size_is_read_without_the_pixels(tmp_path, name, monkeypatch):
    path = saved(tmp_path, PICTURE, name)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert read_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("opens_nothing", [(Path, "open"), (picture_file, "_open_picture")])
def test_a_picture_is_not_called_damaged_where_no_file_can_be_opened(tmp_path, monkeypatch, opens_nothing):
    Image.new("RGB", (32, 32)).save(path := tmp_path / "a.png")
    error = OSError(errno.EMFILE, "Too many open files", "PIL/ImageCms.py")
    monkeypatch.setattr(*opens_nothing, Mock(side_effect=error))
    with pytest.raises(MachineError, match="image_unreadable"):  # an InputError would delete an upload
        read_size(str(path))

"""Pictures of every kind are read with their size and colours, and cropped to any size."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from diffusers_helper.errors import InputError
from diffusers_helper.media import images
from diffusers_helper.media.images import FORMATS, fit_image, read_image, read_size, to_data_uri

WIDTH, HEIGHT = 24, 16
COLOURS = np.array([[[250, 10, 20], [30, 240, 50]], [[60, 70, 230], [200, 180, 100]]], dtype=np.uint8)
"""Four colours, each a quarter of `quarters()`: top left, top right, bottom left, bottom right."""
GREY_16 = np.array([[0, 257 * 90], [257 * 160 + 100, 65535]], dtype=np.uint16)
BEST = {
    ".webp": {"lossless": True, "exact": True},
    ".jpg": {"quality": 100, "subsampling": 0},
    ".avif": {"quality": 100, "subsampling": "4:4:4"},
}
"""The options of lossy formats that keep the most, by ending."""


def quarters(colours: np.ndarray = COLOURS) -> np.ndarray:
    return colours.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)


def corners(picture: np.ndarray) -> np.ndarray:
    """The four colours of a picture of quarters, read in the middle of each."""
    height, width = picture.shape[:2]
    rows, columns = [height // 4, height * 3 // 4], [width // 4, width * 3 // 4]
    return picture[np.ix_(rows, columns)].astype(int)


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> str:
    image.save(folder / name, **(BEST.get(Path(name).suffix, {}) | options))
    return str(folder / name)


def error_code(name: str) -> str:
    with pytest.raises(InputError) as caught:
        read_image(name)
    return caught.value.code


def grey(levels: list[list[float]], kind: type = np.uint8) -> Image.Image:
    return Image.fromarray(quarters(np.array(levels, kind)))


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), colour)


def palette() -> Image.Image:
    return Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE)


def half_transparent_palette() -> Image.Image:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, 200, 100, 0])
    return image


def spread(levels: list[list[int]]) -> np.ndarray:
    """The colours of four greys."""
    return np.stack([levels] * 3, axis=-1)


# -- formats and modes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.ppm", {}, 0),
        ("a.tif", {}, 0),
        ("a.tif", {"compression": "tiff_lzw"}, 0),
        ("a.tif", {"compression": "tiff_adobe_deflate"}, 0),
        ("a.webp", {}, 0),
        ("a.webp", {"quality": 95, "lossless": False}, 12),
        ("a.jpg", {"quality": 95, "subsampling": 2}, 12),
        ("a.jpg", {"quality": 95, "subsampling": 2, "progressive": True}, 12),
        ("a.jpg", {"quality": 95}, 4),
        ("a.jp2", {"irreversible": False}, 0),
        ("a.avif", {"quality": 90}, 12),
    ],
)
def test_each_format_gives_size_and_colours(tmp_path, name, options, tolerance):
    picture = read_image(saved(tmp_path, Image.fromarray(quarters()), name, **options))
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert np.abs(corners(picture) - COLOURS).max() <= tolerance


def test_a_format_is_known_by_its_content_not_its_name(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "photo.jpg", "PNG")
    assert np.array_equal(read_image(str(tmp_path / "photo.jpg")), quarters())


def test_formats_that_this_pillow_lacks_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "FORMATS", ("NO_SUCH_FORMAT", *FORMATS))
    assert read_image(saved(tmp_path, Image.fromarray(quarters()), "a.png")).shape == (HEIGHT, WIDTH, 3)


def test_a_data_uri_is_read_like_a_file():
    picture = noise(40, 56)
    assert np.array_equal(read_image(to_data_uri(picture)), picture)
    assert read_size(to_data_uri(picture)) == (40, 56)


WHITE_CORNER = np.where(np.arange(4).reshape(2, 2, 1) == 0, 255, COLOURS)
GREYS, BITS = [[0, 90], [160, 255]], [[False, True], [True, False]]
INKS = np.array([[[0, 255, 255, 0], [255, 0, 255, 0]], [[0, 0, 0, 128], [0, 0, 0, 0]]], np.uint8)
INKS_RGB = [[[255, 0, 0], [0, 255, 0]], [[127, 127, 127], [255, 255, 255]]]
HALF_ALPHA = np.dstack([quarters(), np.full((HEIGHT, WIDTH), 128, np.uint8)])
MODES = {
    "palette": (palette, "png gif bmp tif", {}, COLOURS, 0),
    "transparent palette colour": (palette, "png gif", {"transparency": (1, 1)}, WHITE_CORNER, 0),
    "half transparent palette": (
        half_transparent_palette, "png", {"transparency": bytes([255, 128])}, [227, 177, 127], 1
    ),
    "grey": (lambda: grey(GREYS), "png bmp tif pgm", {}, spread(GREYS), 0),
    "transparent grey": (lambda: plain("L", 90), "png", {"transparency": 90}, 255, 0),
    "another grey is transparent": (lambda: plain("L", 90), "png", {"transparency": 91}, 90, 0),
    "grey with alpha": (
        lambda: Image.merge("LA", [plain("L", 100), plain("L", 51)]), "png tif webp", {}, 224, 1
    ),
    "alpha": (lambda: Image.fromarray(HALF_ALPHA), "png tif webp avif", {}, COLOURS * 0.502 + 255 * 0.498, 6),
    "1 bit": (lambda: grey(BITS, np.bool_), "png bmp tif gif pbm", {}, spread([[0, 255], [255, 0]]), 0),
    "16 bits": (lambda: Image.fromarray(quarters(GREY_16)), "png tif pgm jp2", {}, spread(GREYS), 0),
    "16 bits, all dark": (lambda: grey([[200, 200]] * 2, np.uint16), "png", {}, 1, 0),
    "YCbCr": (
        lambda: Image.fromarray(quarters()).convert("YCbCr"), "tif", {"compression": "tiff_lzw"}, COLOURS, 3
    ),
    "Lab": (
        lambda: ImageCms.profileToProfile(
            Image.fromarray(quarters()), *map(ImageCms.createProfile, ("sRGB", "LAB")), outputMode="LAB"
        ), "tif", {}, COLOURS, 9
    ),
    "CMYK JPEG": (lambda: Image.fromarray(quarters(INKS), "CMYK"), "jpg", {}, INKS_RGB, 8),
    "CMYK TIFF": (lambda: Image.fromarray(quarters(INKS), "CMYK"), "tif", {}, INKS_RGB, 1),
}  # fmt: skip
"""Pictures, the endings of files that hold them, options, and the colours to read, up to a difference."""


@pytest.mark.parametrize("name", MODES)
def test_each_mode_is_read_with_its_colours(tmp_path, name):
    make, endings, options, expected, tolerance = MODES[name]
    image = make()
    if isinstance(options.get("transparency"), tuple):
        options = {"transparency": image.getpixel(options["transparency"])}
    for ending in endings.split():
        picture = read_image(saved(tmp_path, image, f"a.{ending}", **options))
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(corners(picture) - expected).max() <= tolerance, ending


def png_file(bits: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file from its filtered rows, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(kind: int, values: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    return png_file(16, kind, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values), *extra)


def half_white_row(bits: int) -> bytes:
    size = WIDTH * bits // 8
    return (b"\0" + (b"\xff" * (size // 2)).ljust(size, b"\0")) * HEIGHT


COLOURS_16 = quarters().astype(np.uint16) * 257
ALPHA_16 = np.dstack([COLOURS_16, np.full((HEIGHT, WIDTH), 257 * 128, np.uint16)])
WHITE_BLACK = spread([[255, 0]] * 2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png_of_16_bits(2, COLOURS_16), COLOURS),
        (png_of_16_bits(6, ALPHA_16), COLOURS * 0.502 + 255 * 0.498),
        (
            png_of_16_bits(0, quarters(GREY_16), (b"tRNS", struct.pack(">H", 257 * 90))),
            spread([[0, 255], [160, 255]]),
        ),
        *((png_file(bits, 0, half_white_row(bits)), WHITE_BLACK) for bits in (1, 2, 4)),
    ],
    ids=["16-bit colours", "16-bit alpha", "16-bit transparent grey", "1 bit", "2 bits", "4 bits"],
)
def test_each_depth_of_a_png_is_read_with_its_colours(tmp_path, content, expected):
    (tmp_path / "a.png").write_bytes(content)
    assert np.abs(corners(read_image(str(tmp_path / "a.png"))) - expected).max() <= 1


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


def icc_profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A small colour profile (ICC version 2) from its tags."""
    named = {
        b"desc": b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        **tags,
    }
    table, data = struct.pack(">I", len(named)), b""
    begin = 128 + 4 + 12 * len(named)
    for name, content in named.items():
        table += name + struct.pack(">II", begin + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))


def display_p3() -> bytes:
    """Display P3's primaries with a gamma of 2.2."""
    tags = {
        b"rXYZ": xyz(0.5151, 0.2412, -0.0011),
        b"gXYZ": xyz(0.2920, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1571, 0.0666, 0.7841),
    }
    curves = {name[:1] + b"TRC": gamma_curve(2.2) for name in tags}
    return icc_profile(b"RGB ", b"XYZ ", tags | curves)


def cmyk_profile() -> bytes:
    """A printer whose cyan is a middle grey: L* 50 where there is only cyan, else paper white or black."""
    lab = {(0, 0, 0, 0): (255, 128, 128), (1, 0, 0, 0): (128, 128, 128)}
    colours = b"".join(bytes(lab.get(point, (0, 128, 128))) for point in np.ndindex(2, 2, 2, 2))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", 65536 if i % 4 == 0 else 0) for i in range(9))
    ramp = bytes(range(256))
    return icc_profile(b"CMYK", b"Lab ", {b"A2B0": table + ramp * 4 + colours + ramp * 3})


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LINEAR_GREY = icc_profile(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.0)})
ROSE, ROSE_IN_SRGB = (180, 100, 100), [194, 95, 97]
PROFILES = {
    "Display P3": (plain("RGB", ROSE), "png jpg webp tif", display_p3(), ROSE_IN_SRGB, 3),
    "Display P3, clipped": (plain("RGB", (255, 0, 0)), "png", display_p3(), [255, 0, 0], 1),
    "palette": (plain("RGB", ROSE).convert("P", palette=1), "png", display_p3(), ROSE_IN_SRGB, 3),
    "alpha": (plain("RGB", ROSE).convert("RGBA"), "png", display_p3(), ROSE_IN_SRGB, 3),
    "grey": (plain("L", 128), "png", LINEAR_GREY, 188, 2),
    "grey with alpha": (plain("L", 128).convert("LA"), "png", LINEAR_GREY, 188, 2),
    "CMYK": (plain("CMYK", (255, 0, 0, 0)), "jpg tif", cmyk_profile(), 119, 3),
    "sRGB": (Image.fromarray(quarters()), "png", SRGB, COLOURS, 0),
    "of another mode": (Image.fromarray(quarters()), "png", cmyk_profile(), COLOURS, 0),
    "broken": (Image.fromarray(quarters()), "png", b"broken", COLOURS, 0),
    "empty": (Image.fromarray(quarters()), "png", b"", COLOURS, 0),
    "cut short": (Image.fromarray(quarters()), "png", display_p3()[:200], COLOURS, 0),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_colour_profile_is_applied_unless_it_is_broken(tmp_path, name):
    image, endings, profile, expected, tolerance = PROFILES[name]
    for ending in endings.split():
        picture = read_image(saved(tmp_path, image, f"a.{ending}", icc_profile=profile))
        assert np.abs(corners(picture) - expected).max() <= tolerance, ending


# -- orientation, and the first frame -------------------------------------------------------------------

STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}
"""The stored form of an upright picture under each EXIF orientation."""


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_pictures_are_turned_upright(tmp_path, orientation, name):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quarters())))
    picture = read_image(saved(tmp_path, stored, name, exif=exif_of(orientation)))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert read_size(str(tmp_path / name)) == (HEIGHT, WIDTH)
    assert np.abs(corners(picture) - COLOURS).max() <= 4


def test_palette_pictures_are_turned_upright_with_their_transparency(tmp_path):
    image = Image.fromarray(np.ascontiguousarray(np.rot90(quarters())))
    image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = image.getpixel((1, WIDTH - 2))  # top left, when upright
    picture = read_image(saved(tmp_path, image, "a.png", exif=exif_of(6), transparency=transparent))
    assert np.array_equal(corners(picture), WHITE_CORNER)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_with_its_orientation_at_the_end_has_its_upright_size(tmp_path, orientation):
    path = Path(saved(tmp_path, Image.fromarray(quarters()), "a.png"))
    whole, exif = path.read_bytes(), exif_of(orientation).tobytes().removeprefix(b"Exif\0\0")
    chunk = png_chunk(b"eXIf", exif)
    path.write_bytes(whole[:-12] + chunk + whole[-12:])
    assert read_size(str(path)) == read_image(str(path)).shape[:2]
    assert read_size(str(path)) == ((WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "exif",
    [
        b"nonsense",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0" + bytes(4),  # a text
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0" + bytes(4),  # 99
    ],
)
def test_a_damaged_orientation_is_ignored(tmp_path, exif):
    for name in ("a.jpg", "a.png"):
        picture = read_image(saved(tmp_path, Image.fromarray(quarters()), name, exif=exif))
        assert np.abs(corners(picture) - COLOURS).max() <= 4


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_an_animation_gives_its_first_frame(tmp_path, name):
    first, *others = (plain("RGB", colour) for colour in ("red", "lime", "blue"))
    picture = read_image(saved(tmp_path, first, name, save_all=True, append_images=others, duration=100))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(picture.astype(int) - [255, 0, 0]).max() <= 1


def test_a_picture_with_megabytes_of_text_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("comment", "x" * (70 * 2**20))
    path = saved(tmp_path, Image.fromarray(quarters()), "a.png", pnginfo=info)
    assert np.array_equal(read_image(path), quarters())


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
    assert ends <= {3, "image_broken", "not_an_image", "image_too_small", "image_too_large"}


def test_unusable_pictures_are_rejected_by_both_readers(tmp_path, recwarn):
    (tmp_path / "text.png").write_text("just some words")
    (tmp_path / "empty.png").write_bytes(b"")
    saved(tmp_path, Image.new("RGB", (4, 40)), "small.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "small.png").read_bytes()[:20])
    tif = Path(saved(tmp_path, Image.fromarray(quarters()), "whole.tif")).read_bytes()
    (tmp_path / "cut.tif").write_bytes(tif[:-8])
    codes = {
        "text.png": "not_an_image",
        "empty.png": "image_empty",
        "small.png": "image_too_small",
        "cut.png": "image_broken",
        "cut.tif": "image_broken",
        "none.png": "image_missing",
        "": "image_not_a_file",
    }
    names = {str(tmp_path / name): code for name, code in codes.items()}
    for name, code in (names | {"data:image/png;base64,?": "data_uri_broken"}).items():
        with pytest.raises(InputError) as caught:
            read_size(name)
        assert caught.value.code == error_code(name) == code, name
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.avif"])
def test_a_size_is_read_without_the_pixels(tmp_path, name, monkeypatch):
    path = saved(tmp_path, Image.fromarray(quarters()), name)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert read_size(path) == (HEIGHT, WIDTH)


# -- fitting --------------------------------------------------------------------------------------------


def plain_fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture scaled as a whole, then cropped."""
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_width, new_height = round(old_width * scale), round(old_height * scale)
    scaled = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.LANCZOS)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((300, 400), (64, 96)),
        ((64, 96), (300, 400)),
        ((1080, 1920), (480, 832)),
        ((1001, 667), (832, 480)),
        ((333, 333), (608, 640)),
        ((480, 833), (480, 832)),
        ((20, 2000), (416, 960)),
        ((3000, 21), (960, 416)),
        ((8, 8), (640, 608)),
        ((8, 8), (16, 16)),
        ((97, 31), (64, 64)),
        ((1234, 777), (160, 2048)),
    ],
)
def test_fitting_scales_the_whole_and_crops_the_centre(monkeypatch, old, new):
    expected = plain_fit(noise(*old), *new)
    assert np.array_equal(fit_image(noise(*old), *new), expected)
    monkeypatch.setattr(images, "MAX_SCALED_PIXELS", 0)
    difference = np.abs(fit_image(noise(*old), *new).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-5


def test_a_picture_that_fits_is_returned_unchanged():
    picture = noise(64, 96)
    assert fit_image(picture, 64, 96) is picture


@pytest.mark.parametrize("shape", [(10, 30_000), (30_000, 10)])
def test_a_very_long_picture_needs_little_memory(shape):
    image = np.zeros((*shape, 3), np.uint8)
    before = peak_memory()
    assert fit_image(image, 416, 960).shape == (416, 960, 3)
    assert peak_memory() - before < 64 * 2**20


def peak_memory() -> int:
    """The most bytes that this process has had."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

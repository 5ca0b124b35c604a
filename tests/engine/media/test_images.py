"""Every kind of picture is read with its right size and colours, and cut to any size."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from diffusers_helper.errors import InputError
from diffusers_helper.media import images
from diffusers_helper.media.images import FORMATS, fit_image, read_image, read_size, to_data_uri

WIDTH, HEIGHT = 24, 16
COLOURS = np.array([[[250, 10, 20], [30, 240, 50]], [[60, 70, 230], [200, 180, 100]]], dtype=np.uint8)
"""Four colours, each a quarter of `quarters()`: top left, top right, bottom left, bottom right."""


def quarters(colours: np.ndarray = COLOURS) -> np.ndarray:
    return colours.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1)


def corners(picture: np.ndarray) -> np.ndarray:
    """The four colours of a picture of quarters, read in the middle of each."""
    height, width = picture.shape[:2]
    rows, columns = [height // 4, height * 3 // 4], [width // 4, width * 3 // 4]
    return picture[np.ix_(rows, columns)].astype(int)


def saved(folder, image: Image.Image, name: str, **options: object) -> str:
    image.save(folder / name, **options)
    return str(folder / name)


def error_code(name: str) -> str:
    with pytest.raises(InputError) as caught:
        read_image(name)
    return caught.value.code


# -- kinds of files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.ppm", {}, 0),
        ("a.tif", {}, 0),
        ("a.tif", {"compression": "tiff_lzw"}, 0),
        ("a.tif", {"compression": "tiff_adobe_deflate"}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.webp", {"quality": 95}, 12),
        ("a.jpg", {"quality": 95}, 12),
        ("a.jpg", {"quality": 95, "progressive": True}, 12),
        ("a.jpg", {"quality": 95, "subsampling": "4:4:4"}, 4),
        ("a.jp2", {"irreversible": False}, 0),
        ("a.avif", {"quality": 90, "subsampling": "4:4:4"}, 12),
    ],
)
def test_each_format_gives_size_and_colours(tmp_path, name, options, tolerance):
    picture = read_image(saved(tmp_path, Image.fromarray(quarters()), name, **options))
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert np.abs(corners(picture) - COLOURS).max() <= tolerance


def test_a_format_is_known_by_its_content_not_its_name(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "photo.jpg", "PNG")
    assert np.array_equal(read_image(str(tmp_path / "photo.jpg")), quarters())


def test_formats_that_this_pillow_lacks_do_not_disturb_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers_helper.media.images.FORMATS", ("NO_SUCH_FORMAT", *FORMATS))
    assert read_image(saved(tmp_path, Image.fromarray(quarters()), "a.png")).shape == (HEIGHT, WIDTH, 3)


def test_a_data_uri_is_read_like_a_file():
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    assert np.array_equal(read_image(to_data_uri(picture)), picture)


# -- modes ----------------------------------------------------------------------------------------------


def test_a_palette_picture_has_its_colours(tmp_path):
    image = Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE)
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        assert np.array_equal(read_image(saved(tmp_path, image, name)), quarters())


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_transparent_palette_colour_is_white(tmp_path, name):
    image = Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = image.getpixel((1, 1))
    picture = read_image(saved(tmp_path, image, name, transparency=transparent))
    expected = COLOURS.copy()
    expected[0, 0] = 255
    assert np.array_equal(corners(picture), expected)


def test_palette_colours_that_are_half_transparent_are_mixed_with_white(tmp_path):
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 200, 100, 0])
    picture = read_image(saved(tmp_path, image, "a.png", transparency=bytes([255, 128])))
    assert np.abs(picture[0, 0].astype(int) - [227, 177, 127]).max() <= 1


def test_grey_is_spread_to_three_channels(tmp_path):
    levels = np.array([[0, 90], [160, 255]], dtype=np.uint8)
    grey = Image.fromarray(levels.repeat(8, 0).repeat(12, 1))
    for name in ("a.png", "a.bmp", "a.tif", "a.pgm"):
        picture = read_image(saved(tmp_path, grey, name))
        assert np.array_equal(corners(picture), np.stack([levels] * 3, axis=-1))


def test_a_transparent_grey_is_white(tmp_path):
    image = Image.new("L", (WIDTH, HEIGHT), 90)
    assert read_image(saved(tmp_path, image, "a.png", transparency=90)).min() == 255
    assert read_image(saved(tmp_path, image, "b.png", transparency=91)).max() == 90


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_grey_with_alpha_is_laid_over_white(tmp_path, name):
    image = Image.merge("LA", [Image.new("L", (WIDTH, HEIGHT), value) for value in (100, 51)])
    picture = read_image(saved(tmp_path, image, name, **({"lossless": True} if name == "a.webp" else {})))
    assert np.abs(picture.astype(int) - (100 * 0.2 + 255 * 0.8)).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.avif"])
def test_alpha_is_laid_over_white(tmp_path, name):
    image = Image.fromarray(np.dstack([quarters(), np.full((HEIGHT, WIDTH), 128, np.uint8)]))
    image.putpixel((0, 0), (0, 0, 0, 0))
    lossless = {"a.webp": {"lossless": True, "exact": True}, "a.avif": {"quality": 100}}.get(name, {})
    picture = read_image(saved(tmp_path, image, name, **lossless))
    assert np.abs(corners(picture) - (COLOURS * (128 / 255) + 255 * (127 / 255))).max() <= 6
    assert picture[0, 0].min() >= 250


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.pbm"])
def test_one_bit_pictures_are_black_and_white(tmp_path, name):
    bits = np.array([[False, True], [True, False]])
    image = Image.fromarray(bits.repeat(8, 0).repeat(12, 1))
    picture = read_image(saved(tmp_path, image, name))
    assert np.array_equal(corners(picture)[..., 0], [[0, 255], [255, 0]])


GREY_16 = np.array([[0, 257 * 90], [257 * 160 + 100, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, name):
    picture = read_image(saved(tmp_path, Image.fromarray(GREY_16.repeat(8, 0).repeat(12, 1)), name))
    assert np.array_equal(corners(picture)[..., 1], [[0, 90], [160, 255]])


def test_a_dark_sixteen_bit_picture_stays_dark(tmp_path):
    dark = Image.fromarray(np.full((HEIGHT, WIDTH), 200, np.uint16))
    assert read_image(saved(tmp_path, dark, "a.png")).max() == 1


def test_a_transparent_sixteen_bit_grey_is_white(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(
        raw_png(16, 0, GREY_16.repeat(8, 0).repeat(12, 1), (b"tRNS", struct.pack(">H", 257 * 90)))
    )
    assert np.array_equal(corners(read_image(str(path)))[..., 1], [[0, 255], [160, 255]])


def test_sixteen_bit_colours_keep_their_range(tmp_path):
    colours = quarters().astype(np.uint16) * 257
    (path := tmp_path / "a.png").write_bytes(raw_png(16, 2, colours))
    assert np.array_equal(corners(read_image(str(path))), COLOURS)


def test_sixteen_bit_alpha_is_laid_over_white(tmp_path):
    alpha = np.full((HEIGHT, WIDTH, 1), 257 * 128, np.uint16)
    (path := tmp_path / "a.png").write_bytes(
        raw_png(16, 6, np.dstack([quarters().astype(np.uint16) * 257, alpha]))
    )
    assert np.abs(corners(read_image(str(path))) - (COLOURS * 0.502 + 255 * 0.498)).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_few_bits_are_spread_to_the_whole_range(tmp_path, bits):
    top = 2**bits - 1
    row = b"\0" + bytes([255]) * (WIDTH * bits // 8 // 2) + bytes(WIDTH * bits // 8 - WIDTH * bits // 8 // 2)
    (path := tmp_path / "a.png").write_bytes(png_file(bits, 0, row * HEIGHT))
    picture = read_image(str(path))
    assert (picture[0, 0].tolist(), picture[0, -1].tolist()) == ([255] * 3, [0] * 3), top


def png_file(bits: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file from its filtered rows, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def raw_png(bits: int, kind: int, values: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png_file(bits, kind, rows, *extra)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 90], [160, 255]], np.int32), [[0, 90], [160, 255]]),
        (np.array([[0, 257 * 90], [257 * 160, 65535]], np.int32), [[0, 90], [160, 255]]),
        (np.array([[-1000, -500], [0, 1000]], np.int32), [[0, 64], [128, 255]]),
        (np.array([[0, 10**6], [5 * 10**5, 2 * 10**6]], np.int32), [[0, 127], [64, 255]]),
        (np.zeros((2, 2), np.int32), [[0, 0], [0, 0]]),
        (np.array([[0.0, 0.25], [0.5, 1.0]], np.float32), [[0, 64], [128, 255]]),
        (np.array([[0, 90], [160, 255]], np.float32), [[0, 90], [160, 255]]),
        (np.array([[0, 257 * 90], [257 * 160, 65535]], np.float32), [[0, 90], [160, 255]]),
        (np.array([[np.nan, 0.5], [np.inf, -np.inf]], np.float32), [[0, 128], [255, 0]]),
        (np.full((2, 2), np.nan, np.float32), [[0, 0], [0, 0]]),
        (np.array([[-1.0, 0.0], [0.5, 3.0]], np.float32), [[0, 64], [96, 255]]),
    ],
)
def test_deep_grey_tiffs_are_read_by_the_range_of_their_values(tmp_path, values, expected):
    picture = read_image(saved(tmp_path, Image.fromarray(values.repeat(8, 0).repeat(12, 1)), "a.tif"))
    assert np.array_equal(corners(picture)[..., 2], expected)


def test_cmyk_without_a_profile_is_converted_plainly(tmp_path):
    inks = np.array([[[0, 255, 255, 0], [255, 0, 255, 0]], [[0, 0, 0, 128], [0, 0, 0, 0]]], np.uint8)
    image = Image.fromarray(inks.repeat(8, 0).repeat(12, 1), "CMYK")
    expected = [[[255, 0, 0], [0, 255, 0]], [[127, 127, 127], [255, 255, 255]]]
    for name, tolerance in (("a.jpg", 8), ("a.tif", 1)):
        picture = read_image(saved(tmp_path, image, name, **({"quality": 100} if name == "a.jpg" else {})))
        assert np.abs(corners(picture) - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_with_a_profile_is_converted_by_it(tmp_path, name):
    options = {"quality": 100} if name == "a.jpg" else {}
    image = Image.new("CMYK", (WIDTH, HEIGHT), (255, 0, 0, 0))
    picture = read_image(saved(tmp_path, image, name, icc_profile=cmyk_profile(), **options))
    assert np.abs(picture[0, 0].astype(int) - [119, 119, 119]).max() <= 3  # L* 50 in the profile, not cyan


def test_ycbcr_tiffs_have_their_colours(tmp_path):
    image = Image.fromarray(quarters()).convert("YCbCr")
    picture = read_image(saved(tmp_path, image, "a.tif", compression="tiff_lzw"))
    assert np.abs(corners(picture) - COLOURS).max() <= 3


def test_lab_tiffs_have_their_colours(tmp_path):
    colours = Image.fromarray(quarters())
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    image = ImageCms.applyTransform(colours, to_lab)
    assert np.abs(corners(read_image(saved(tmp_path, image, "a.tif"))) - COLOURS).max() <= 9


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
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", begin + len(data), len(content))
        data += padded
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def display_p3() -> bytes:
    """Display P3's primaries with a gamma of 2.2."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(2.2 * 256))
    primaries = {
        b"r": (0.5151, 0.2412, -0.0011),
        b"g": (0.2920, 0.6922, 0.0419),
        b"b": (0.1571, 0.0666, 0.7841),
    }
    tags = {name + b"XYZ": xyz(*values) for name, values in primaries.items()}
    return icc_profile(b"RGB ", b"XYZ ", tags | {name + b"TRC": curve for name in primaries})


def grey_profile(gamma: float) -> bytes:
    return icc_profile(b"GRAY", b"XYZ ", {b"kTRC": b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))})


def cmyk_profile() -> bytes:
    """A printer whose cyan is a middle grey: L* 50 where there is only cyan, else paper white or black."""
    lab = {(0, 0, 0, 0): (255, 128, 128), (1, 0, 0, 0): (128, 128, 128)}
    grid = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    colours = b"".join(bytes(lab.get(point, (0, 128, 128))) for point in grid)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", 65536 if i % 4 == 0 else 0) for i in range(9))
    ramp = bytes(range(256))
    table += ramp * 4 + colours + ramp * 3
    return icc_profile(b"CMYK", b"Lab ", {b"A2B0": table})


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_display_p3_is_converted_to_srgb(tmp_path, name):
    image = Image.new("RGB", (WIDTH, HEIGHT), (180, 100, 100))
    options = {"a.jpg": {"quality": 100}, "a.webp": {"lossless": True}}.get(name, {})
    picture = read_image(saved(tmp_path, image, name, icc_profile=display_p3(), **options))
    assert np.abs(picture[0, 0].astype(int) - [194, 95, 97]).max() <= 3
    pure = Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0))
    assert (
        np.abs(
            read_image(saved(tmp_path, pure, "p.png", icc_profile=display_p3()))[0, 0] - [255.0, 0, 0]
        ).max()
        <= 1
    )


def test_a_profile_counts_for_palettes_and_alpha_too(tmp_path):
    plain = Image.new("RGB", (WIDTH, HEIGHT), (180, 100, 100))
    for mode in ("P", "RGBA"):
        image = plain.convert(mode, palette=Image.Palette.ADAPTIVE)
        picture = read_image(saved(tmp_path, image, f"{mode}.png", icc_profile=display_p3()))
        assert np.abs(picture[0, 0].astype(int) - [194, 95, 97]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_counts(tmp_path, mode):
    image = Image.new("L", (WIDTH, HEIGHT), 128).convert(mode)
    linear = read_image(saved(tmp_path, image, "a.png", icc_profile=grey_profile(1.0)))
    assert np.abs(linear.astype(int) - 188).max() <= 2


@pytest.mark.parametrize("profile", [b"broken", b"", display_p3()[:200]])
def test_a_broken_profile_is_ignored(tmp_path, profile):
    picture = read_image(saved(tmp_path, Image.fromarray(quarters()), "a.png", icc_profile=profile))
    assert np.array_equal(picture, quarters())


def test_a_profile_of_another_kind_of_picture_is_ignored(tmp_path):
    picture = read_image(saved(tmp_path, Image.fromarray(quarters()), "a.png", icc_profile=cmyk_profile()))
    assert np.array_equal(picture, quarters())


def test_an_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_image(saved(tmp_path, Image.fromarray(quarters()), "a.png", icc_profile=profile))
    assert np.array_equal(picture, quarters())


# -- upright, and the first frame -----------------------------------------------------------------------

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
"""How a camera stores an upright picture under each EXIF orientation."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_pictures_are_turned_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quarters())))
    options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100, "subsampling": 0}}.get(name, {})
    picture = read_image(saved(tmp_path, stored, name, exif=exif, **options))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert read_size(str(tmp_path / name)) == (HEIGHT, WIDTH)
    assert np.abs(corners(picture) - COLOURS).max() <= 4


def test_palette_pictures_are_turned_upright_with_their_transparency(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(quarters())))
    image = stored.convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = image.getpixel((1, WIDTH - 2))  # top left, when upright
    picture = read_image(saved(tmp_path, image, "a.png", exif=exif, transparency=transparent))
    expected = COLOURS.copy()
    expected[0, 0] = 255
    assert np.array_equal(corners(picture), expected)


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
    image = Image.fromarray(quarters())
    for name, options in (("a.jpg", {"quality": 100, "subsampling": 0}), ("a.png", {})):
        picture = read_image(saved(tmp_path, image, name, exif=exif, **options))
        assert np.abs(corners(picture) - COLOURS).max() <= 4


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_a_moving_picture_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100, **options)
    picture = read_image(path)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(picture.astype(int) - [255, 0, 0]).max() <= 1


def test_a_picture_with_megabytes_of_text_in_it_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("comment", "x" * (70 * 2**20))
    path = saved(tmp_path, Image.fromarray(quarters()), "a.png", pnginfo=info)
    assert np.array_equal(read_image(path), quarters())


# -- damaged files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_a_damaged_picture_is_refused_or_read_but_nothing_else(tmp_path, kind):
    """Bytes changed at random and files cut anywhere: an InputError or a picture, no other end."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
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


def test_warnings_of_the_reader_are_not_shown(tmp_path, recwarn):
    image = Image.fromarray(quarters())
    whole = (tmp_path / "a.tif", image.save(tmp_path / "a.tif"))[0].read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[:-8])
    assert error_code(str(tmp_path / "cut.tif")) in ("image_broken", "not_an_image")
    assert [str(warning.message) for warning in recwarn] == []


# -- cutting --------------------------------------------------------------------------------------------


def plain_fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What `fit_image` must give: the whole scaled, then cropped."""
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_width, new_height = round(old_width * scale), round(old_height * scale)
    scaled = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.LANCZOS)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


SHAPES = [
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
]
"""Sizes (height, width) of pictures and what they are fitted to."""


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_fitting_is_scaling_the_whole_and_cropping_the_centre(old, new):
    fitted = fit_image(noise(*old), *new)
    assert fitted.shape == (*new, 3)
    assert np.array_equal(fitted, plain_fit(noise(*old), *new))


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_scaling_only_the_part_that_stays_gives_the_same(monkeypatch, old, new):
    monkeypatch.setattr(images, "MAX_SCALED_PIXELS", 0)
    difference = np.abs(fit_image(noise(*old), *new).astype(int) - plain_fit(noise(*old), *new))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-5


def test_a_picture_that_fits_is_not_touched():
    picture = noise(64, 96)
    assert fit_image(picture, 64, 96) is picture


@pytest.mark.parametrize("shape", [(10, 30_000), (30_000, 10)])
def test_a_very_long_picture_needs_little_memory(shape):
    image = np.zeros((*shape, 3), np.uint8)
    before = peak_memory()
    assert fit_image(image, 416, 960).shape == (416, 960, 3)
    assert peak_memory() - before < 64 * 2**20


def peak_memory() -> int:
    """Bytes that this process has had at most."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- sizes without pixels -------------------------------------------------------------------------------


def test_the_size_of_a_picture_inside_a_request_is_read():
    assert read_size(to_data_uri(quarters())) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.avif"])
def test_a_size_is_read_without_the_pixels(tmp_path, name, monkeypatch):
    path = saved(tmp_path, Image.fromarray(quarters()), name)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert read_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_that_tells_its_orientation_at_its_end_has_its_upright_size(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(quarters()), "a.png")
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + content))
    with open(path, "r+b") as file:  # noqa: PTH123
        end = file.read()
        file.seek(0)
        file.write(end[:-12] + chunk + end[-12:])
    assert read_size(path) == read_image(path).shape[:2]
    assert read_size(path) == ((WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH))


def test_a_size_that_cannot_be_read_is_refused_like_the_picture(tmp_path):
    (tmp_path / "text.png").write_text("just some words")
    (tmp_path / "empty.png").write_bytes(b"")
    saved(tmp_path, Image.new("RGB", (4, 40)), "small.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "small.png").read_bytes()[:20])
    names = [str(tmp_path / f"{name}.png") for name in ("text", "empty", "small", "cut", "none")]
    for name in [*names, str(tmp_path), "data:image/png;base64,?"]:
        with pytest.raises(InputError) as caught:
            read_size(name)
        assert caught.value.code == error_code(name)

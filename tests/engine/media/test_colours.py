"""Colours become those that Chromium 156 shows on a canvas of sRGB; all numbers here were read there."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media.images import read_image
from tests.support.colour_tags import (
    ADOBE,
    ADOBE_CHRM,
    LCMS_SRGB,
    LINEAR_PROFILE,
    SRGB,
    SRGB_CHRM,
    WIDE_CHRM,
    chrm,
    cicp,
    clli,
    gama,
    icc,
    iccp,
    with_profile,
)
from tests.support.pictures import noise, png_chunk, png_file

COLOURS = [(200, 60, 30), (40, 180, 90), (128, 128, 128), (20, 30, 40), (240, 240, 10)]
STRIPES = np.array([COLOURS], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
GREYS = np.array([[0, 10, 60, 128, 200]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
SRGB_MARK = png_chunk(b"sRGB", b"\0")
LINEAR, BY_ADOBE = LINEAR_PROFILE, icc("Adobe (not sRGB)", 2.2, ADOBE)
LINEAR_GREY, GREY_1_8 = icc("grey", 1), icc("grey", 1.8)
CUT_PROFILE = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(LINEAR)[:-9])
P3_PQ = icc("P3", 2.2, SRGB, cicp=(9, 16))

LOSS = 6
"""Levels that the encoders of photographs change here; tone mapping makes the most of them."""

IS_LINEAR = [(229, 133, 96), (110, 219, 160), (188, 188, 188), (79, 96, 110), (248, 248, 56)]
IS_P3 = [(217, 42, 0), (0, 183, 78), (128, 128, 128), (17, 30, 41), (240, 240, 0)]
IS_ADOBE = [(231, 57, 21), (0, 181, 83), (129, 129, 129), (5, 24, 36), (240, 240, 0)]
IS_PQ = [(255, 0, 0), (0, 255, 0), (132, 132, 132), (0, 4, 10), (255, 255, 0)]
IS_HLG = [(230, 0, 0), (0, 170, 58), (99, 99, 99), (0, 13, 20), (250, 243, 0)]
IS_GAMMA_2_2 = [(201, 57, 24), (35, 181, 90), (129, 129, 129), (12, 24, 35), (240, 240, 3)]
IS_GAMMA_2_8 = [(192, 36, 9), (0, 165, 68), (106, 106, 106), (2, 8, 17), (237, 237, 26)]
PNG_TAGS = {
    "nothing": (b"", COLOURS),
    "sRGB": (SRGB_MARK, COLOURS),
    "gamma 1": (gama(100_000), IS_LINEAR),
    "gamma 1.8": (
        gama(55_556), [(210, 77, 40), (53, 193, 109), (146, 146, 146), (26, 40, 53), (243, 243, 10)]
    ),
    "gamma 0.5": (
        gama(200_000), [(242, 185, 158), (169, 236, 203), (219, 219, 219), (144, 158, 169), (252, 252, 123)]
    ),
    "gamma 2.2 means sRGB": (gama(45_455), COLOURS),
    "gamma 0": (gama(0), COLOURS),
    "gamma and primaries": (gama(45_455) + chrm(*ADOBE_CHRM), IS_ADOBE),
    "gamma 2.2 with primaries": (gama(45_455) + chrm(*SRGB_CHRM), IS_GAMMA_2_2),
    "gamma with another white": (
        gama(100_000) + chrm(*WIDE_CHRM),
        [(255, 93, 86), (0, 235, 149), (188, 188, 188), (45, 100, 113), (255, 249, 0)],
    ),
    "primaries that span nothing": (gama(100_000) + chrm(*[0] * 8), COLOURS),
    "primaries alone": (chrm(*ADOBE_CHRM), COLOURS),
    "sRGB before gamma": (gama(100_000) + SRGB_MARK, COLOURS),
    "sRGB of no known intent": (gama(100_000) + png_chunk(b"sRGB", b"\x09"), IS_LINEAR),
    "linear profile called sRGB": (iccp(LINEAR), IS_LINEAR),
    "profile called not sRGB": (iccp(BY_ADOBE), IS_ADOBE),
    "profile of sRGB": (iccp(LCMS_SRGB), COLOURS),
    "profile before sRGB": (iccp(LINEAR) + SRGB_MARK, IS_LINEAR),
    "profile before gamma": (gama(100_000) + iccp(BY_ADOBE), IS_ADOBE),
    "the first profile of two": (iccp(LINEAR) + iccp(BY_ADOBE), IS_LINEAR),
    "profile of grey": (gama(100_000) + iccp(GREY_1_8), COLOURS),
    "profile of nonsense": (iccp(b"x" * 500), COLOURS),
    "profile cut short": (CUT_PROFILE + gama(100_000), IS_LINEAR),
    "code points in a profile": (iccp(P3_PQ), IS_PQ),
    "code points of P3": (cicp(12, 13), IS_P3),
    "code points before a profile": (iccp(LINEAR) + cicp(12, 13), IS_P3),
    "code points that say nothing": (iccp(LINEAR) + cicp(2, 2), IS_LINEAR),
    "code points of YUV": (cicp(12, 13, matrix=1), COLOURS),
    "code points of a narrow range": (cicp(12, 13, is_full=0), COLOURS),
    "BT.709": (cicp(1, 1), [(197, 49, 18), (28, 176, 81), (121, 121, 121), (7, 18, 28), (239, 239, 1)]),
    "BT.2020": (cicp(9, 14), [(244, 0, 0), (0, 186, 62), (121, 121, 121), (0, 19, 29), (247, 240, 0)]),
    "linear": (cicp(1, 8), IS_LINEAR),
    "gamma 2.2 of code points": (cicp(1, 4), IS_GAMMA_2_2),
    "gamma 2.8 of code points": (cicp(5, 5), IS_GAMMA_2_8),
    "PQ": (cicp(9, 16), IS_PQ),
    "PQ of BT.709": (
        cicp(1, 16), [(255, 15, 2), (5, 248, 46), (132, 132, 132), (1, 4, 9), (255, 255, 0)]
    ),
    "PQ of 500 nits": (
        cicp(9, 16) + clli(500), [(255, 0, 0), (0, 255, 0), (156, 156, 156), (0, 6, 14), (255, 255, 0)]
    ),
    "PQ of 100 nits": (
        cicp(9, 16) + clli(100), [(255, 0, 0), (0, 255, 0), (181, 181, 181), (0, 9, 18), (255, 255, 0)]
    ),
    "HLG": (cicp(9, 18), IS_HLG),
    "HLG of P3": (cicp(12, 18), [(200, 24, 0), (0, 164, 62), (99, 99, 99), (4, 13, 20), (243, 243, 0)]),
}  # fmt: skip
"""Chunks in front of the pixels, and what the stripes become."""


def png(pixels: np.ndarray, chunks: bytes, bits: int = 8, after: bytes = b"") -> bytes:
    """A PNG file of 8 or 16 bits, by levels of 8 bits, with chunks in front of the pixels and behind."""
    values = pixels.astype(">u2") * 257 if bits == 16 else pixels
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    kind = 0 if pixels.ndim == 2 else {2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    height, width = pixels.shape[:2]
    return png_file(width, height, chunks, png_chunk(b"IDAT", rows), after, bits=bits, kind=kind)


def read(folder: Path, content: bytes) -> np.ndarray:
    (folder / "picture").write_bytes(content)
    return read_image(str(folder / "picture"))


def stripes(picture: np.ndarray) -> np.ndarray:
    return picture[8, 8::16].astype(int)


@pytest.mark.parametrize("name", PNG_TAGS)
def test_the_tags_of_a_png_mean_what_they_mean_in_chromium(tmp_path, name):
    chunks, expected = PNG_TAGS[name]
    for bits in (8, 16):
        got = stripes(read(tmp_path, png(STRIPES, chunks, bits)))
        assert np.abs(got - expected).max() <= (2 if expected is not COLOURS else 0)


@pytest.mark.parametrize("name", ["gamma 1", "linear profile called sRGB", "code points of P3", "PQ"])
def test_tags_behind_the_pixels_count_for_nothing(tmp_path, name):
    assert np.array_equal(read(tmp_path, png(STRIPES, b"", after=PNG_TAGS[name][0])), STRIPES)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (b"", [0, 10, 60, 128, 200]),
        (gama(100_000), [0, 56, 133, 188, 229]),
        (gama(55_556), [0, 10, 77, 146, 210]),
        (iccp(LINEAR_GREY), [0, 56, 133, 188, 229]),
        (iccp(GREY_1_8), [0, 10, 77, 146, 210]),
        (iccp(LINEAR), [0, 56, 133, 188, 229]),
        (cicp(9, 16), [0, 0, 26, 132, 255]),
        (cicp(12, 13), [0, 10, 60, 128, 200]),
    ],
)
def test_grey_has_tags_too(tmp_path, bits, has_alpha, chunks, expected):
    pixels = np.dstack([GREYS, np.full_like(GREYS, 255)]) if has_alpha else GREYS
    got = stripes(read(tmp_path, png(pixels, chunks, bits)))
    assert np.abs(got - np.array(expected)[:, None]).max() <= 1


def test_dark_greys_are_not_coarse(tmp_path):
    levels = np.array([[1, 2, 3, 4, 5]], np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    expected = np.array([13, 22, 28, 34, 38])[:, None]
    for chunks in (gama(100_000), iccp(LINEAR_GREY), iccp(LINEAR)):
        assert np.abs(stripes(read(tmp_path, png(levels, chunks))) - expected).max() <= 1
    rows = zlib.compress((b"\0" + b"\1\xc0" * 16) * 16)
    deep = png_file(16, 16, gama(100_000), png_chunk(b"IDAT", rows), bits=16, kind=0)
    assert (read(tmp_path, deep) == 13).all()  # its upper 8 bits alone


def test_a_profile_that_differs_from_srgb_by_less_than_a_level_changes_nothing(tmp_path):
    profile = bytearray(LCMS_SRGB)
    place = int.from_bytes(profile[profile.index(b"rXYZ", 128) + 4 :][:4], "big") + 8
    primary = int.from_bytes(profile[place + 2 : place + 4], "big")
    profile[place + 2 : place + 4] = (primary + 40).to_bytes(2, "big")
    pixels = noise(64, 64)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=bytes(profile))
    assert np.array_equal(read_image(str(tmp_path / "a.png")), pixels)


def test_colours_are_converted_before_they_lie_on_white(tmp_path):
    pixels = np.dstack([STRIPES, np.full(STRIPES.shape[:2], 51, np.uint8)])
    got = stripes(read(tmp_path, png(pixels, gama(100_000))))
    assert np.abs(got - (np.array(IS_LINEAR) * 0.2 + 255 * 0.8)).max() <= 2


@pytest.mark.parametrize(("name", "options"), [
    ("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True}), ("TIFF", {}),
    ("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("HEIF", {"quality": 100, "chroma": 444}),
])  # fmt: skip
@pytest.mark.parametrize(
    ("profile", "expected"),
    [(LINEAR, IS_LINEAR), (BY_ADOBE, IS_ADOBE), (LCMS_SRGB, COLOURS), (P3_PQ, IS_PQ), (b"x" * 200, COLOURS)],
)
def test_a_profile_counts_in_every_format(tmp_path, name, options, profile, expected):
    if name == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(STRIPES).save(buffer := io.BytesIO(), name, icc_profile=profile, **options)
    assert np.abs(stripes(read(tmp_path, buffer.getvalue())) - expected).max() <= LOSS


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("code_points", "expected"),
    [
        ((1, 13), COLOURS),
        ((12, 13), IS_P3),
        ((1, 8), IS_LINEAR),
        ((1, 4), IS_GAMMA_2_2),
        ((5, 5), IS_GAMMA_2_8),
        ((9, 16), IS_PQ),
        ((9, 18), IS_HLG),
        ((1, 1), COLOURS),
        ((9, 14), [(247, 0, 0), (0, 191, 72), (128, 128, 128), (8, 31, 40), (245, 242, 0)]),
        ((2, 2), COLOURS),
    ],
)
def test_code_points_of_video_formats(tmp_path, name, code_points, expected):
    if name == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    options = {"quality": 100} | ({"chroma": 444} if name == "HEIF" else {"subsampling": "4:4:4"})
    Image.fromarray(STRIPES).save(buffer := io.BytesIO(), name, **options)
    content = bytearray(buffer.getvalue())
    place = content.index(b"colrnclx") + 8
    content[place : place + 4] = struct.pack(">HH", *code_points)
    assert np.abs(stripes(read(tmp_path, bytes(content))) - expected).max() <= LOSS


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("method", "expected"), [(1, COLOURS), (2, IS_ADOBE), (3, IS_ADOBE), (9, COLOURS)])
def test_a_profile_of_jpeg_2000(tmp_path, mode, method, expected):
    Image.fromarray(STRIPES).convert(mode).save(buffer := io.BytesIO(), "JPEG2000", irreversible=False)
    got = stripes(read(tmp_path, with_profile(buffer.getvalue(), BY_ADOBE, method)))
    assert np.abs(got - expected).max() <= LOSS


def test_large_pictures_are_converted_in_strips_that_fit_together(tmp_path, monkeypatch):
    content = png(STRIPES, gama(100_000))
    whole = read(tmp_path, content)
    monkeypatch.setattr("diffusers_helper.media.images.STRIP_PIXELS", 3 * STRIPES.shape[1])
    assert np.array_equal(read(tmp_path, content), whole)


def test_the_black_of_a_scanner_stays_grey(tmp_path):
    """Its profile is a table of 6x6x6 colours, whose black is 1 % of the light."""
    profile = (Path(__file__).parents[2] / "support/profiles/scanner.icc").read_bytes()
    colours = np.array([[(204, 51, 0), (0, 0, 0), (102, 153, 51)]], np.uint8)
    Image.fromarray(colours.repeat(16, 0).repeat(16, 1)).save(tmp_path / "a.png", icc_profile=profile)
    got = stripes(read_image(str(tmp_path / "a.png")))
    assert np.abs(got - [(212, 72, 27), (24, 26, 26), (121, 169, 72)]).max() <= 2

"""PNG files are read whatever stands in the chunks that hold no pixels."""

import io
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.images import read_image, read_size
from diffusers_helper.media.png_chunks import pixels_only, read_text
from tests.support.colour_tags import LCMS_SRGB, LINEAR_PROFILE, iccp
from tests.support.pictures import noise, png_chunk, png_file

PICTURE = noise(16, 24)
ROWS = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in PICTURE)))
MANY = b"x" * (2**20 + 4)
BOMB = zlib.compress(bytes(2**27))
"""128 MiB of zeros in 128 KiB."""
HARMLESS = {
    "compressed text of over 1 MiB": png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(MANY)),
    "text of over 1 MiB": png_chunk(b"tEXt", b"parameters\0" + MANY),
    "XMP of over 1 MiB": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(MANY)),
    "text that is a bomb": png_chunk(b"zTXt", b"a\0\0" + BOMB),
    "profile that is a bomb": png_chunk(b"iCCP", b"a\0\0" + BOMB),
    "profile of over 1 MiB": iccp(LCMS_SRGB + random.Random(0).randbytes(2**20)),
    "EXIF of over 1 MiB": png_chunk(b"eXIf", b"II*\0" + bytes(2**20)),
    "text without an end": png_chunk(b"iTXt", b"no end"),
    "text of broken zlib": png_chunk(b"zTXt", b"a\0\0broken"),
    "profile of broken zlib": png_chunk(b"iCCP", b"a\0\0broken"),
    "profile without a name": png_chunk(b"iCCP", b""),
    "empty resolution": png_chunk(b"pHYs", b""),
    "long resolution": png_chunk(b"pHYs", bytes(50)),
    "short gamma": png_chunk(b"gAMA", b"\1"),
    "short primaries": png_chunk(b"cHRM", b"\1" * 31),
    "short code points": png_chunk(b"cICP", b"\x0c"),
    "empty sRGB": png_chunk(b"sRGB", b""),
    "short peak": png_chunk(b"cLLI", b"\0") + png_chunk(b"mDCV", b"\0"),
    "broken EXIF": png_chunk(b"eXIf", b"\xff" * 30),
    "short time": png_chunk(b"tIME", b"\0"),
    "long background": png_chunk(b"bKGD", bytes(30)),
    "broken animation": png_chunk(b"acTL", b"\0"),
    "animation of many frames": png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
    "broken frame": png_chunk(b"fcTL", b"\0"),
    "unknown": png_chunk(b"abCd", b"anything"),
}
DAMAGED = {
    kind.decode(): png_chunk(kind, bytes(9))[:-1] + b"!"
    for kind in (
        b"pHYs",
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"iCCP",
        b"eXIf",
        b"gAMA",
        b"sRGB",
        b"cICP",
        b"tRNS",
        b"abCd",
    )
}
"""Chunks whose checksum is wrong."""


def read(folder: Path, content: bytes) -> np.ndarray:
    (folder / "a.png").write_bytes(content)
    picture = read_image(str(folder / "a.png"))
    assert read_size(str(folder / "a.png")) == picture.shape[:2]
    return picture


def error_of(folder: Path, content: bytes, partial: bool = False) -> InputError:
    (folder / "a.png").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_image(str(folder / "a.png"), partial)
    return caught.value


@pytest.mark.parametrize("name", [*HARMLESS, *DAMAGED])
def test_what_holds_no_pixels_is_harmless(tmp_path, name):
    chunk = (HARMLESS | DAMAGED)[name]
    assert np.array_equal(read(tmp_path, png_file(24, 16, chunk, ROWS)), PICTURE)
    assert np.array_equal(read(tmp_path, png_file(24, 16, ROWS, chunk)), PICTURE)


def test_bombs_take_no_memory():
    bombs = HARMLESS["text that is a bomb"] + HARMLESS["profile that is a bomb"]
    file = io.BytesIO(png_file(24, 16, bombs, ROWS))
    tracemalloc.start()
    try:
        pixels_only(file)
        assert read_text(file, "a", 2**20) is None
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_a_damaged_profile_of_colours_is_left_out(tmp_path):
    whole = iccp(LINEAR_PROFILE)
    assert not np.array_equal(read(tmp_path, png_file(24, 16, whole, ROWS)), PICTURE)
    assert np.array_equal(read(tmp_path, png_file(24, 16, whole[:-1] + b"!", ROWS)), PICTURE)


def test_pixels_with_a_wrong_checksum_or_without_an_end_are_read(tmp_path):
    whole = png_file(24, 16, ROWS)
    assert np.array_equal(read(tmp_path, whole[:-12]), PICTURE)
    assert np.array_equal(read(tmp_path, png_file(24, 16, ROWS[:-1] + b"!")), PICTURE)
    assert np.array_equal(read(tmp_path, whole + b"more"), PICTURE)


def test_a_damaged_palette_or_header_is_refused(tmp_path):
    Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE).save(buffer := io.BytesIO(), "PNG")
    whole = bytearray(buffer.getvalue())
    palette = bytearray(whole)
    palette[whole.index(b"PLTE") + 5] ^= 1
    assert error_of(tmp_path, bytes(palette)).code == "image_broken"
    whole[29] ^= 1
    assert error_of(tmp_path, bytes(whole)).code == "image_broken"


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth(tmp_path, bits):
    levels = np.arange(16) % 2**bits
    digits = "".join(format(level, f"0{bits}b") for level in levels)
    row = b"\0" + int(digits, 2).to_bytes(2 * bits, "big")
    chunks = png_chunk(b"tRNS", struct.pack(">H", 1)), png_chunk(b"IDAT", zlib.compress(row * 16))
    expected = np.where(levels == 1, 255, np.rint(levels * 255 / (2**bits - 1)))
    got = read(tmp_path, png_file(16, 16, *chunks, bits=bits, kind=0))
    assert np.array_equal(got, np.broadcast_to(expected[None, :, None], (16, 16, 3)))


@pytest.mark.parametrize("kept", [0.9, 0.6, 0.2])
def test_a_png_that_is_cut_tells_how_much_is_missing(tmp_path, kept):
    picture = noise(100, 80)
    Image.fromarray(picture).save(buffer := io.BytesIO(), "PNG")
    content = buffer.getvalue()[: int(len(buffer.getvalue()) * kept)]
    error = error_of(tmp_path, content)
    assert error.code == "image_cut"
    assert error.values["missing"] == pytest.approx(100 * (1 - kept), abs=4)
    if kept > 0.5:
        got = read_image(str(tmp_path / "a.png"), partial=True)
        rows = int(100 * kept) - 4
        assert np.array_equal(got[:rows], picture[:rows])
        assert not got[-int(100 * (1 - kept)) + 4 :].any()
    else:
        assert error_of(tmp_path, content, partial=True).code == "image_cut"


@pytest.mark.parametrize("grain", [1, 4])
def test_zeros_where_a_download_stopped_are_missing(tmp_path, grain):
    picture = np.kron(noise(100, 80), np.ones((grain, grain, 1), np.uint8))
    Image.fromarray(picture).save(buffer := io.BytesIO(), "PNG")
    whole = buffer.getvalue()
    error = error_of(tmp_path, whole[: len(whole) // 2] + bytes(len(whole) // 2))
    assert (error.code, error.values["missing"]) == ("image_cut", pytest.approx(50, abs=5))


def animated(mode: str, **options: object) -> bytes:
    """An animation whose first picture is `PICTURE`, and its second one upside down."""
    frames = [
        Image.fromarray(picture).convert(mode) for picture in (PICTURE, PICTURE[::-1], PICTURE[:, ::-1])
    ]
    frames[0].save(buffer := io.BytesIO(), "PNG", save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_default_picture_that_is_no_frame_is_not_shown(tmp_path, mode):
    first = np.asarray(Image.fromarray(PICTURE).convert(mode).convert("RGB"))
    assert np.array_equal(read(tmp_path, animated(mode)), first)
    assert np.array_equal(read(tmp_path, animated(mode, default_image=True)), first[::-1])


def test_a_first_frame_that_is_cut_tells_how_much_is_missing(tmp_path):
    whole = animated("RGB", default_image=True)
    start = whole.index(b"fdAT")
    error = error_of(tmp_path, whole[: start + (whole.index(b"fcTL", start) - start) // 2])
    assert (error.code, error.values["missing"]) == ("image_cut", pytest.approx(50, abs=6))


def test_the_default_picture_of_an_animation_that_is_none_is_shown(tmp_path):
    whole = animated("RGB", default_image=True)
    for kind, bytes_before, changed in ((b"acTL", 0, bytes(8)), (b"fcTL", 12, bytes([0, 0, 0, 1]))):
        place = whole.index(kind) + 4 + bytes_before
        content = (
            whole[:place] + changed + whole[place + len(changed) :]
        )  # no frames, or the first one elsewhere
        assert np.array_equal(read(tmp_path, content), PICTURE)


def test_chunks_of_any_length_and_kind_end_in_a_picture_or_a_sentence(tmp_path):
    rng = random.Random(0)
    kinds = [b"tEXt", b"iCCP", b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"IEND", b"\0\0\0\0", b"fdAT", b"cICP"]
    for _ in range(100):
        chunks = []
        for _ in range(rng.randrange(1, 5)):
            chunk = bytearray(png_chunk(rng.choice(kinds), rng.randbytes(rng.randrange(40))))
            if rng.random() < 0.3:
                chunk[:4] = struct.pack(">I", rng.choice([0, 3, 2**31, 2**32 - 1]))
            chunks.append(bytes(chunk))
        chunks.insert(rng.randrange(len(chunks) + 1), ROWS)
        (tmp_path / "a.png").write_bytes(png_file(24, 16, *chunks))
        try:
            assert read_image(str(tmp_path / "a.png")).shape == (16, 24, 3)
        except InputError as error:
            assert error.code in ("image_broken", "image_cut", "not_an_image")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_a_text_is_found_in_front_of_the_pixels_and_behind(kind):
    packed = {
        b"tEXt": b"comment\0" + "é".encode("latin-1"),
        b"zTXt": b"comment\0\0" + zlib.compress("é".encode("latin-1")),
        b"iTXt": b"comment\0\1\0\0\0" + zlib.compress("é".encode()),
    }[kind]
    other = png_chunk(kind, b"another\0text")
    for chunks in ((other, png_chunk(kind, packed), ROWS), (ROWS, other, png_chunk(kind, packed))):
        assert read_text(io.BytesIO(png_file(24, 16, *chunks)), "comment", 2**20) == "é"
    assert read_text(io.BytesIO(png_file(24, 16, other, ROWS)), "comment", 2**20) is None

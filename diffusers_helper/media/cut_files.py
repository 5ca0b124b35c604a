"""Files that are cut, or end in zeros where a download stopped: how much of the picture is missing.

Knows Pillow as a decoder, no request and no person.
"""

import dataclasses
import io
import struct
from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import Image, JpegImagePlugin

from .jpeg_markers import missing_part
from .png_chunks import completed, has_end

LOST = 64
"""Zeros at the end of a file from which on they may stand for what never came."""
MAX_FLAT_RATE = 0.1
"""Bits a pixel that zeros may take in a whole file: in WebP, they code a plain area (0.06 at most)."""
_LIT_PART = 0.9
"""The part of a row's pixels that are not zero, at least, where zeros cut it."""
_LENGTH = 8
"""Bytes of the longest length; its last ones may be zeros, too."""
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error, RuntimeError)
"""The errors that Pillow raises for damaged files beside OSError and SyntaxError."""

Decoder = Callable[[IO[bytes]], Image.Image]
"""Opens a file of the picture's format and decodes it."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """The part of a picture that is missing, from 0 to 1, and how the rest is read."""

    missing: float
    read: Callable[[], Image.Image]


def find_cut(image: Image.Image, source: IO[bytes], decode: Decoder, is_decoded: bool) -> Cut | None:
    """Return what is missing of a picture; None where nothing is, or where that cannot be told.

    Args:
        source: its file; of a PNG, one with pixels only.
        is_decoded: Pillow decoded it; if not, only JPEG and PNG files are looked at.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _cut_jpeg(source, decode) if not is_decoded or _zeros_at_end(source) else None
    if image.format == "PNG":
        return _cut_png(source, decode) if not is_decoded or not has_end(source) else None
    if not is_decoded or not _zeros_at_end(source):
        return None
    if image.format in ("BMP", "PPM") or image.info.get("compression") == "raw":
        missing = _lost_rows(image, from_below=image.format == "BMP" and not _is_top_down(source))
    else:
        missing = _lost_bytes(image, source, decode)
    return Cut(missing, lambda: image) if missing else None


def _cut_jpeg(source: IO[bytes], decode: Decoder) -> Cut | None:
    source.seek(0)
    found = missing_part(source.read(), lambda data: decode(io.BytesIO(data)))
    if found is None:
        return None
    missing, mended = found
    return Cut(missing, lambda: decode(io.BytesIO(mended)))


def _cut_png(source: IO[bytes], decode: Decoder) -> Cut:
    source.seek(0)
    missing, whole = completed(source)
    return Cut(missing, lambda: decode(whole))


def _zeros_at_end(file: IO[bytes]) -> bool:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - LOST, 0))
    return not any(file.read(LOST))


def _is_top_down(bmp: IO[bytes]) -> bool:
    bmp.seek(22)  # its height
    return int.from_bytes(bmp.read(4), "little", signed=True) < 0


def _lost_rows(image: Image.Image, from_below: bool) -> float:
    """Return the part of a picture without compression that zeros at its file's end lost.

    Black rows end files, too. They were lost if the zeros begin within a row of a picture that is lit all
    along the rows around this place.
    """
    box = image.getbbox(alpha_only=False)
    if box is None:
        return 0.0
    width, height = image.size
    _, top, _, bottom = box
    last, before, lost = (top, top + 1, top) if from_below else (bottom - 1, bottom - 2, height - bottom)
    if lost == 0:
        return 0.0
    row, row_before = _lit(image, last), _lit(image, before)
    begin = int(np.flatnonzero(row)[-1]) + 1
    if begin == width or min(row[:begin].mean(), row_before[begin:].mean()) < _LIT_PART:
        return 0.0
    return (lost * width + width - begin) / (width * height)


def _lit(image: Image.Image, row: int) -> np.ndarray:
    """Return which pixels of a row are not zero."""
    pixels = np.asarray(image.crop((0, row, image.width, row + 1)))
    return np.any(pixels.reshape(image.width, -1), axis=1)


def _lost_bytes(image: Image.Image, source: IO[bytes], decode: Decoder) -> float:
    """Return the part of a compressed file that zeros at its end took; 0 where no pixel depends on them.

    The file is decoded once more for that, with noise for zeros, which takes the memory of two pictures.
    """
    source.seek(0)
    data = source.read()
    zeros = len(data) - len(data.rstrip(b"\0"))
    noise = np.random.default_rng(0).integers(1, 256, zeros - _LENGTH, np.uint8).tobytes()
    if _gives(image, decode, data[: len(data) - len(noise)] + noise):
        return 0.0
    if image.format == "WEBP" and 8 * zeros < MAX_FLAT_RATE * image.width * _plain_rows(image):
        return 0.0
    return zeros / len(data)


def _gives(image: Image.Image, decode: Decoder, data: bytes) -> bool:
    """Check whether a file gives that picture; compares some rows at a time, in little memory."""
    try:
        other = decode(io.BytesIO(data))
    except (*DAMAGED, OSError, SyntaxError):
        return False
    boxes = ((0, top, image.width, min(top + 256, image.height)) for top in range(0, image.height, 256))
    return other.size == image.size and all(
        image.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes
    )


def _plain_rows(image: Image.Image) -> int:
    """Count the rows at the bottom that are equal."""
    upwards = np.asarray(image)[::-1]
    return next((y for y, row in enumerate(upwards) if not np.array_equal(row, upwards[0])), image.height)

"""Pictures: any common kind of file is read as RGB and cropped to a size. Knows no tensor."""

import base64
import contextlib
import io
import math
import stat
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from ..errors import InputError
from ..request import MAX_REQUEST_BYTES, is_data_uri

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
MIN_SIDE = 8
"""Pixels along the shorter side at least."""
LANCZOS_RADIUS = 3
"""Pixels of the larger picture around one of the smaller that the filter reads."""
PNG_SIGNATURE, PNG_CHECKSUM = 8, 4
"""Bytes before the first chunk of a PNG file, and at the end of each."""
MAX_SCALED_PIXELS = 2**25
"""Pixels of the largest picture that is scaled as a whole before it is cropped."""
MAX_PIXELS = 178_956_970
"""Pixels at most: Pillow's limit against decompression bombs, which a message names. Phones take pictures of
108 megapixels; reading the largest takes up to 4 GB of memory for seconds."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpositions that undo each EXIF orientation."""
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


def read_image(name: str) -> np.ndarray:
    """Read a picture as `(height, width, 3)` uint8 sRGB, turned upright, transparency over white.

    An animation gives its first frame. `name` is a path, or a `data:` URI that holds the file.

    Raises:
        InputError: it is missing, is no picture, is damaged, or has an impossible size.
    """
    with _opened(name) as (image, _):
        image.load()
        turn = _TURNS.get(_orientation(image))
        return np.asarray(_to_rgb(image if turn is None else image.transpose(turn)))


def read_size(name: str) -> tuple[int, int]:
    """Read the size (height, width) that `read_image` would give, mostly without decoding the picture.

    Raises:
        InputError: like `read_image`, except for damage among the pixels.
    """
    with _opened(name) as (image, source):
        # Pillow turns a TIFF while it reads it.
        if image.format == "TIFF" or (image.format == "PNG" and _has_chunks_after_pixels(source)):
            image.load()
        width, height = image.size
        return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def fit_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture `(h, w, 3)` uint8 to cover `(height, width)` with LANCZOS and crop the centre.

    One that fits is returned unchanged. Where the scaled whole would be huge (a very long picture), only the
    part that stays is scaled, which is equal up to the rounding of a few pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_height, new_width = round(old_height * scale), round(old_width * scale)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    if new_height * new_width > MAX_SCALED_PIXELS:
        step_x, step_y = old_width / new_width, old_height / new_height
        upper, lower = top * step_y, min((top + height) * step_y, old_height)
        margin = LANCZOS_RADIUS * max(step_y, 1) + 1
        # Rows are cut off here: of a picture that is high enough, Pillow would scale the rows first.
        first = max(math.floor(upper - margin), 0)
        part = Image.fromarray(image[first : math.ceil(lower + margin)])
        box = (left * step_x, upper - first, min((left + width) * step_x, old_width), lower - first)
        return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS, box))
    scaled = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.LANCZOS)
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


def to_data_uri(image: np.ndarray) -> str:
    """Encode a picture `(height, width, 3)` uint8 as a `data:` URI, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def allow_long_text() -> None:
    """Let Pillow open PNG files with as much text as a request may have: ours embed pictures in it."""
    PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, MAX_REQUEST_BYTES)


def _open_source(name: str) -> tuple[IO[bytes], str]:
    """Open a picture's file; returns it with its name for messages."""
    if is_data_uri(name):
        return open_data_uri(name)
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise InputError("image_not_a_file", image=name)
        if status.st_size == 0:
            raise InputError("image_empty", image=name)
        return Path(name).open("rb"), name
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("image_missing", image=name) from error
    except OSError as error:  # a name that is too long, a file without permission to read
        raise InputError("image_unreadable", image=name[:200], reason=error.strerror or str(error)) from error


def open_data_uri(uri: str) -> tuple[IO[bytes], str]:
    header, _, payload = uri.partition(",")
    try:
        if not header.endswith(";base64"):
            raise InputError("data_uri_broken")
        return io.BytesIO(base64.b64decode(payload, validate=True)), header.partition(";")[0][:40]
    except ValueError as error:
        raise InputError("data_uri_broken") from error


@contextlib.contextmanager
def _opened(name: str) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """Open a picture without its pixels. Raises InputError for any error of Pillow, also in the block."""
    source, shown = _open_source(name)
    allow_long_text()
    Image.init()
    # Only formats that this Pillow was built with: it fails on others' names.
    formats = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        with source, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files
            with Image.open(source, formats=formats) as image:
                width, height = image.size
                if min(width, height) < MIN_SIDE:
                    raise InputError(
                        "image_too_small", image=shown, width=width, height=height, least=MIN_SIDE
                    )
                yield image, source
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError("image_too_large", image=shown, megapixels=MAX_PIXELS // 10**6) from error
    except UnidentifiedImageError as error:
        raise InputError("not_an_image", image=shown) from error
    except Exception as error:  # a damaged file makes Pillow raise anything
        reason = str(error) or type(error).__name__
        raise InputError("image_broken", image=shown, reason=reason) from error


def _orientation(image: Image.Image) -> int:
    """Read how a picture is turned, and no other EXIF data, which is often odd; 1 where it is upright."""
    try:
        # The base class's method: PNG's reads the pixels first.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except (*_DAMAGED, OSError, SyntaxError):
        return 1  # damaged EXIF data is no reason to reject the picture
    return orientation if isinstance(orientation, int) else 1


def _has_chunks_after_pixels(png: IO[bytes]) -> bool:
    """Check whether a PNG file has other chunks behind its first pixels; keeps the file's position."""
    position, kinds = png.tell(), set[bytes]()
    png.seek(PNG_SIGNATURE)
    while len(header := png.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        kinds |= {kind} if kinds or kind == b"IDAT" else set()
        png.seek(length + PNG_CHECKSUM, io.SEEK_CUR)
    png.seek(position)
    return not kinds <= {b"IDAT", b"IEND"}


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_deep_to_8_bit(image)).convert("RGB")
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return _to_srgb(image, profile)
    alpha = image.convert("RGBA").getchannel("A")
    colours = _to_srgb(image.convert("L" if image.mode in ("L", "LA") else "RGB"), profile)
    return Image.composite(colours, Image.new("RGB", image.size, "white"), alpha)


def _deep_to_8_bit(image: Image.Image) -> np.ndarray:
    """Convert grey values of more than 8 bits to 8.

    Where the file does not hold the values of black and white, they are guessed: 0 and 1 (floats only), 255
    or 65535, else the extremes.
    """
    values = np.asarray(image).astype(np.float32)
    if image.mode.startswith("I;16"):
        low, top = 0.0, 65535.0
        if "transparency" in image.info:
            values[values == image.info["transparency"]] = top
    else:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        known = next((top for top in tops if low >= 0 and high <= top), None)
        low, top = (0.0, known) if known is not None else (low, max(high, low + 1))
    values = np.nan_to_num(values, posinf=top, neginf=low)
    return np.rint((values - low) * (255 / (top - low))).clip(0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by the picture's colour profile (a phone's Display P3, a printer's CMYK), if any."""
    if image.mode not in ("RGB", "CMYK", "L", "LAB"):
        image = image.convert("RGB")
    with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a broken profile is ignored
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in (ImageCms.getProfileDescription(source) or ""):
                return _transform(image, source)
    if image.mode == "LAB":
        return _transform(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image.convert("RGB")


def _transform(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    changed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert changed is not None  # it is where nothing is changed in place
    return changed

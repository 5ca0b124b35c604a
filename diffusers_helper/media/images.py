"""Pictures: any common kind of file is read as RGB and cropped to a size. Knows no tensor."""

import base64
import dataclasses
import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from .colours import Conversion, conversion
from .picture_file import Picture, opened

LANCZOS_RADIUS = 3
"""Pixels of the larger picture around one of the smaller that the filter reads."""
MAX_SCALED_PIXELS = 2**25
"""Pixels of the largest picture that is scaled as a whole before it is cropped."""
STRIP_PIXELS = 2**20
"""Pixels whose colours are converted together, in little memory."""
_WHITE = 255


def read_image(name: str, partial: bool = False) -> np.ndarray:
    """Read a picture as `(height, width, 3)` uint8 sRGB, turned upright, transparency over white.

    An animation gives its first frame; a JPEG of more than `MAX_WHOLE_PIXELS` is read at a half, a quarter or
    an eighth of its size. `name` is a path, or a `data:` URI that holds the file. One that is cut in the
    middle (JPEG, PNG), or whose end is zeros, is read only if it may be `partial`: what is missing is grey,
    coarse, black or white, or whatever the decoder makes of zeros.

    Raises:
        InputError: it is missing, is no picture, is damaged, or has an impossible size; `image_cut` tells in
            its value `missing` about how many per cent are. Up to `MAX_MISSING` it can be read in part.
    """
    with opened(name) as picture:
        picture.load(partial)
        turn, pixels = picture.orientation(), _to_rgb(picture)
    return pixels if turn == 1 else np.ascontiguousarray(_turned(pixels, turn))


def read_size(name: str) -> tuple[int, int]:
    """Read the size (height, width) that `read_image` would give, mostly without decoding the picture.

    Raises:
        InputError: like `read_image`, except for damage among the pixels.
    """
    with opened(name) as picture:
        if picture.image.format == "TIFF":  # Pillow turns it while it reads it
            picture.image.load()
        width, height = picture.image.size
        return (width, height) if picture.orientation() >= 5 else (height, width)


def fit_image(image: np.ndarray, height: int, width: int, position: float = 0.5) -> np.ndarray:
    """Scale a picture `(h, w, 3)` uint8 to cover `(height, width)` with LANCZOS and crop what sticks out.

    `position` says which part of it stays: 0 the left or upper one, 0.5 the centre, 1 the other end. One
    that fits is returned unchanged. Where the scaled whole would be huge (a very long picture), only the part
    that stays is scaled, which is equal up to the rounding of a few pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_height, new_width = round(old_height * scale), round(old_width * scale)
    left, top = round((new_width - width) * position), round((new_height - height) * position)
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


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation of 2 to 8, as a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _to_rgb(picture: Picture) -> np.ndarray:
    """Convert the pixels to sRGB, strip by strip."""
    image = picture.image
    levels = _Levels.of(image) if _is_deep(image) else None
    mode = "L" if picture.tags.is_grey else _colour_mode(image)
    convert = conversion(picture.tags, mode, picture.is_video_format)
    width, height = image.size
    pixels, rows = np.empty((height, width, 3), np.uint8), max(STRIP_PIXELS // width, 1)
    for top, part in zip(range(0, height, rows), _strips(image, rows), strict=True):
        pixels[top : top + rows] = np.asarray(_strip_to_rgb(part, mode, levels, convert))
    return pixels


def _strips(image: Image.Image, rows: int) -> Iterator[Image.Image]:
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _colour_mode(image: Image.Image) -> str:
    """The mode without transparency and depth in which a picture's colours are converted."""
    if image.mode in ("CMYK", "LAB"):
        return image.mode
    return "L" if image.mode in ("1", "L", "LA", "La") or _is_deep(image) else "RGB"


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _strip_to_rgb(
    part: Image.Image, mode: str, levels: "_Levels | None", convert: Conversion | None
) -> Image.Image:
    alpha = None
    if levels is not None:
        part = Image.fromarray(levels.to_8_bit(part, as_browsers=convert is not None))
    elif part.has_transparency_data:
        alpha = part.convert("RGBA").getchannel("A")
    if part.mode != mode:
        part = part.convert(mode)
    colours = part.convert("RGB") if convert is None else convert(part)
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", part.size, "white"), alpha)


@dataclasses.dataclass(frozen=True)
class _Levels:
    """The values of black and white in a picture of grey values of more than 8 bits."""

    low: float
    top: float
    transparent: int | None
    white_is_zero: bool
    is_unsigned: bool

    @classmethod
    def of(cls, image: Image.Image) -> "_Levels":
        """Return the levels that a file holds; those that it does not hold are guessed.

        0 and 1 (floats only), 255 or 65535, else the extremes.
        """
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        white_is_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
        # Pillow keeps them in signed numbers.
        is_unsigned = (
            image.mode == "I" and tags.get(BITSPERSAMPLE) == (32,) and tags.get(SAMPLEFORMAT) == (1,)
        )
        if image.mode.startswith("I;16"):
            return cls(0.0, 65535.0, image.info.get("transparency"), white_is_zero, False)
        kind = np.uint32 if is_unsigned else np.asarray(image.crop((0, 0, 1, 1))).dtype
        strips = (np.asarray(part).view(kind) for part in _strips(image, max(STRIP_PIXELS // image.width, 1)))
        finite = (values[np.isfinite(values)] for values in strips)
        extremes = [(float(part.min()), float(part.max())) for part in finite if part.size]
        low = min((low for low, _ in extremes), default=0.0)
        high = max((high for _, high in extremes), default=1.0)
        tops = [1.0] * (image.mode == "F") + [255.0, 65535.0] + [2.0**32 - 1] * is_unsigned
        known = next((top for top in tops if low >= 0 and high <= top), None)
        low, top = (0.0, known) if known is not None else (low, max(high, low + 1))
        return cls(low, top, None, white_is_zero, is_unsigned)

    def to_8_bit(self, part: Image.Image, as_browsers: bool) -> np.ndarray:
        """Round values; before colours are converted, browsers cut their lower 8 bits off, which shows."""
        values = np.asarray(part)
        values = (values.view(np.uint32) if self.is_unsigned else values).astype(np.float32)
        if self.transparent is not None:
            values[values == self.transparent] = self.top
        values = np.nan_to_num(values, posinf=self.top, neginf=self.low)
        if as_browsers and part.mode.startswith("I;16"):
            levels = values // 256
        else:
            levels = np.rint((values - self.low) * (_WHITE / (self.top - self.low))).clip(0, _WHITE)
        return (_WHITE - levels if self.white_is_zero else levels).astype(np.uint8)

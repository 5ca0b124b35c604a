"""Pictures: reading any common kind of file into RGB, and cutting it to a size. Knows no tensor."""

import base64
import binascii
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import InputError
from .request import is_data_uri

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
MIN_SIDE = 8
MAX_PIXELS = 178_956_970
"""Pillow's own limit against decompression bombs, stated here so that the message can name it."""


def read_image(name: str) -> np.ndarray:
    """Read a picture as `(height, width, 3)` uint8 sRGB, turned upright, transparency over white.

    `name` is a path, or a `data:` URI that holds the file.

    Raises:
        InputError: saying what is wrong with it.
    """
    source, shown = _open_source(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                _check_size(image.size, shown)
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError as error:
        raise InputError("image_too_large", image=shown, megapixels=MAX_PIXELS // 10**6) from error
    except UnidentifiedImageError as error:
        raise InputError("not_an_image", image=shown) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError("image_broken", image=shown, reason=str(error)) from error


def fit_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale to cover `(height, width)` with LANCZOS and crop the centre; unchanged where it fits already.

    Only the part that stays is scaled, so that a very long picture needs no more memory than another.
    """
    if image.shape[:2] == (height, width):
        return image
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_width, new_height = round(old_width * scale), round(old_height * scale)
    left, top = round((new_width - width) / 2), round((new_height - height) / 2)
    x, y = old_width / new_width, old_height / new_height  # source pixels to one scaled pixel
    box = (left * x, top * y, min((left + width) * x, old_width), min((top + height) * y, old_height))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box))


def to_data_uri(image: np.ndarray) -> str:
    """A picture `(height, width, 3)` uint8 as a lossless `data:` URI that `read_image` reads back equal."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _open_source(name: str) -> tuple[Path | io.BytesIO, str]:
    if is_data_uri(name):
        try:
            header, _, payload = name.partition(",")
            if not header.endswith(";base64"):
                raise InputError("data_uri_broken")
            return io.BytesIO(base64.b64decode(payload, validate=True)), header.partition(";")[0]
        except binascii.Error as error:
            raise InputError("data_uri_broken") from error
    path = Path(name)
    try:
        if path.is_dir():
            raise InputError("image_is_folder", image=name)
        if not path.exists():
            raise InputError("image_missing", image=name)
        if path.stat().st_size == 0:
            raise InputError("image_empty", image=name)
    except OSError as error:  # a name too long for the file system, a folder we may not enter
        raise InputError("image_broken", image=name[:200], reason=error.strerror or str(error)) from error
    return path, name


def _check_size(size: tuple[int, int], shown: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError("image_too_large", image=shown, megapixels=MAX_PIXELS // 10**6)
    if min(width, height) < MIN_SIDE:
        raise InputError("image_too_small", image=shown, width=width, height=height, least=MIN_SIDE)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_deep_to_8_bit(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        colours = _to_srgb(image.convert("RGB"), image.info.get("icc_profile"))
        white = Image.new("RGB", image.size, "white")
        return Image.composite(colours, white, alpha)
    return _to_srgb(image, image.info.get("icc_profile"))


def _deep_to_8_bit(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits to 8: 0..1 floats, 0..255, 0..65535, or whatever wider range."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    tops = [top for top in (1.0, 255.0, 65535.0) if high <= top and low >= 0]
    if not tops:
        values, tops = values - low, [max(high - low, 1.0)]
    elif tops[0] == 1.0 and np.all(values == np.rint(values)):
        tops = tops[2:]  # whole numbers of at most 1 are a very dark 16-bit picture
    return np.rint(np.nan_to_num(values) * (255.0 / tops[0])).clip(0, 255).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """To sRGB by the picture's own colour profile (a phone's Display P3, a printer's CMYK), if any."""
    if profile and image.mode in ("RGB", "CMYK", "L", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in (ImageCms.getProfileDescription(source) or ""):
                changed = ImageCms.profileToProfile(
                    image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                return changed if changed is not None else image.convert("RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile is no reason to refuse the picture
    return image.convert("RGB")

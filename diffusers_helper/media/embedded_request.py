"""The request inside the files that we write: reading it back out of an MP4 or PNG, and packing it.

Both carry the request's JSON as their comment, with the cropped pictures in it as `data:` URIs, so that
the file alone is enough to make the same video again.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..errors import InputError
from ..files.atomic import atomic_write
from ..request import MAX_REQUEST_BYTES, GenerationRequest, parse_request_json
from .images import allow_long_text, to_data_uri

COMMENT = "comment"


def load_request(path: Path, defaults: Mapping[str, object] | None = None) -> GenerationRequest:
    """Read a request from a JSON file, or from an MP4 or PNG that we wrote.

    Args:
        defaults: what holds where a JSON file says nothing else; None for a request's own defaults.

    Raises:
        InputError: the file is missing, is something else, or holds a bad request.
    """
    path = path.absolute()
    start = _read_start(path)
    if start.startswith(b"\x89PNG"):
        return _parse_comment(_png_comment(path), path, own_picture=path.name)
    if start[4:8] == b"ftyp":
        return _parse_comment(_mp4_comment(path), path)
    if path.stat().st_size > MAX_REQUEST_BYTES:
        raise InputError("request_too_large", path=str(path))
    values = parse_request_json(path.read_bytes())
    if isinstance(values, dict):
        values = {**(defaults or {}), **values}
    return GenerationRequest.from_dict(values, path.parent)


def pack_request(
    request: GenerationRequest, pictures: Mapping[str, np.ndarray], seed: int
) -> dict[str, object]:
    """The request as JSON values that stand alone: real seed, real size, pictures inside.

    Args:
        pictures: the cropped pictures `(height, width, 3)` uint8 by the name they have in the request.
    """
    height, width = pictures[request.start_picture].shape[:2]
    packed = request.map_images(lambda name: None if name is None else to_data_uri(pictures[name]))
    return dataclasses.replace(packed, seed=seed, width=width, height=height).to_dict()


def without_start(packed: Mapping[str, object]) -> dict[str, object]:
    """A packed request for the start picture's own PNG, which need not hold that picture twice."""
    is_own = packed.get("start_image") is not None
    return {key: value for key, value in packed.items() if key != "start_image" or not is_own}


def write_png(path: Path, picture: np.ndarray, packed: Mapping[str, object]) -> None:
    """Write a picture `(height, width, 3)` uint8 with the request in it, atomically.

    A request without the key `start_image` means that picture.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(COMMENT, json.dumps(packed, ensure_ascii=False))
    with atomic_write(path) as part:
        Image.fromarray(picture).save(part, "PNG", pnginfo=info)


def _read_start(path: Path) -> bytes:
    """The first bytes, which tell what kind of file it is."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise InputError("request_not_a_file", path=str(path))
        with path.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise InputError("request_missing", path=str(path), reason=error.strerror or str(error)) from error


def _png_comment(path: Path) -> str | None:
    """The comment of a PNG file, which we write in front of the picture; the picture is not read."""
    allow_long_text()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture so large that Pillow wonders is not ours anyway
            with Image.open(path, formats=("PNG",)) as image:
                return image.info.get(COMMENT)
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError("image_broken", image=str(path), reason=str(error)) from error


def _mp4_comment(path: Path) -> str | None:
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return container.metadata.get(COMMENT)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("video_broken", path=str(path), reason=reason) from error


def _parse_comment(comment: str | None, path: Path, own_picture: str | None = None) -> GenerationRequest:
    try:
        values = parse_request_json(comment or "")
    except InputError as error:
        raise InputError("not_made_by_us", path=str(path)) from error
    if not isinstance(values, dict) or "seed" not in values:
        raise InputError("not_made_by_us", path=str(path))
    if own_picture is not None:
        values.setdefault("start_image", own_picture)
    return GenerationRequest.from_dict(values, path.parent)

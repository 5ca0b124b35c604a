"""The request embedded in the MP4 and PNG files that we write: packing it, and reading it back.

It is their comment, as JSON with the cropped pictures as `data:` URIs, so that the file alone is enough to
make the same video again.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..errors import InputError
from ..files.atomic import atomic_write
from ..request import MAX_REQUEST_BYTES, GenerationRequest, parse_request_json
from .images import allow_long_text, to_data_uri
from .video import open_video

COMMENT = "comment"
OURS = {"seed", "section_seconds", "distilled_guidance_scale"}
"""Keys of every request that we embed: JSON of another program may have some of ours, too."""


def load_request(path: Path, defaults: Mapping[str, object] | None = None) -> GenerationRequest:
    """Read a request from a JSON file, or from an MP4 or PNG that we wrote.

    Args:
        defaults: values for keys that a JSON file leaves out; None for the request's defaults.

    Raises:
        InputError: the file is missing, is of another kind, or holds a bad request.
    """
    path = path.absolute()
    start = _read_start(path)
    if start.startswith(b"\x89PNG"):
        return _parse_comment(_png_comment(path), path, own_picture=path.name)
    if start[4:8] == b"ftyp":
        with open_video(path) as container:
            return _parse_comment(container.metadata.get(COMMENT), path)
    if path.stat().st_size > MAX_REQUEST_BYTES:
        raise InputError("request_too_large", path=str(path))
    values = parse_request_json(path.read_bytes())
    if isinstance(values, dict):
        values = {**(defaults or {}), **values}
    return GenerationRequest.from_dict(values, path.parent)


def pack_request(
    request: GenerationRequest, pictures: Mapping[str, np.ndarray], seed: int
) -> dict[str, object]:
    """Make a request self-contained, as JSON values: actual seed, actual size, pictures inside.

    `pictures` are cropped, `(height, width, 3)` uint8 by their names in the request.
    """
    height, width = pictures[request.start_picture].shape[:2]
    packed = request.map_images(lambda name: to_data_uri(pictures[name]))
    return dataclasses.replace(packed, seed=seed, width=width, height=height).to_dict()


def without_start(packed: Mapping[str, object]) -> dict[str, object]:
    """Leave out the start picture of a packed request, for that picture's PNG."""
    return {key: value for key, value in packed.items() if key != "start_image" or value is None}


def write_png(path: Path, picture: np.ndarray, packed: Mapping[str, object]) -> None:
    """Write a picture `(height, width, 3)` uint8 with a packed request in it, atomically.

    Without the key `start_image`, this picture is the request's start picture.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(COMMENT, json.dumps(packed, ensure_ascii=False))
    with atomic_write(path) as part:
        Image.fromarray(picture).save(part, "PNG", pnginfo=info)


def _read_start(path: Path) -> bytes:
    """Read the first 12 bytes, which show the kind of file."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise InputError("request_not_a_file", path=str(path))
        with path.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise InputError("request_missing", path=str(path), reason=error.strerror or str(error)) from error


def _png_comment(path: Path) -> str | None:
    """Read the comment of a PNG file without the picture: we write it in front."""
    allow_long_text()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a huge picture, which is not ours anyway
            with Image.open(path, formats=("PNG",)) as image:
                return image.info.get(COMMENT)
    except Image.DecompressionBombError:
        return None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError("image_broken", image=str(path), reason=str(error)) from error


def _parse_comment(comment: str | None, path: Path, own_picture: str | None = None) -> GenerationRequest:
    try:
        values = parse_request_json(comment or "")
    except InputError as error:
        raise InputError("not_made_by_us", path=str(path)) from error
    if not isinstance(values, dict) or "seed" not in values:
        raise InputError("not_made_by_us", path=str(path))
    if own_picture is not None:
        values.setdefault("start_image", own_picture)
    try:
        return GenerationRequest.from_dict(values, path.parent)
    except InputError as error:
        if values.keys() >= OURS:
            raise
        raise InputError("not_made_by_us", path=str(path)) from error

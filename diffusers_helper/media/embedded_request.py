"""The request embedded in the MP4 and PNG files that we write: packing it, and reading it back.

It is their comment, as JSON with the pictures as `data:` URIs, so that the file alone is enough to make the
same video again, or a larger one. A file that is to hold no request has `LEFT_OUT` as its comment. Both name
the version that wrote them.
"""

import collections
import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ..errors import InputError
from ..files.atomic import atomic_write
from ..request import MAX_REQUEST_BYTES, REQUEST_FIELDS, GenerationRequest, parse_request_json
from ..version import VERSION
from .images import to_data_uri
from .iso_boxes import read_comment
from .packed_picture import pack_picture
from .png_chunks import has_end, read_text
from .video import open_video

COMMENT = "comment"
APP = "Endframe Ichi"
LEFT_OUT = f"{APP} {VERSION}"
MADE_BY = "made_by"
"""The key, beside those of the request, under which a comment names the app and its version."""
WHOLE_CHARACTERS = 32 * 2**20
"""Characters of pictures in a request, from which on further ones are kept in the size of the video only."""
OURS = {"seed", "section_seconds", "distilled_guidance_scale"}
"""Keys of every request that we embed: JSON of another program may have some of ours, too."""
COMMON = {"prompt", "negative_prompt", "seed", "seconds", "steps", "guidance_scale", "guidance_rescale"}
COMMON |= {"loop", "resolution", "width", "height", "crf", "teacache"}
"""Keys that other programs have, too."""
THEIRS = {
    "model",
    "model_name",
    "model_type",
    "type",
    "sampler",
    "sampler_name",
    "scheduler",
    "cfg",
    "cfg_scale",
}
THEIRS |= {"aspect_ratio", "num_inference_steps", "num_frames", "video_length", "workflow", "nodes", "loras"}
"""Keys that other programs have, and we have not."""
TYPO = 0.75
"""The likeness, of 1, from which on an unknown key is a known one mistyped."""


def load_request(path: Path, defaults: Mapping[str, object] | None = None) -> GenerationRequest:
    """Read a request from a JSON file, or from an MP4 or PNG that we wrote.

    Args:
        defaults: values for keys that a JSON file leaves out; None for the request's defaults.

    Raises:
        InputError: the file is missing, is of another kind, or holds a bad request. No key is named to whom
            gives a file of another program.
    """
    path = path.absolute()
    start = _read_start(path)
    if start.startswith(b"\x89PNG"):
        return _parse_comment(_png_comment(path), path, own_picture=path.name)
    if start[4:8] == b"ftyp":
        with open_video(path) as container:
            comment = container.metadata.get(COMMENT, "")
            return _parse_comment(comment if len(comment) <= MAX_REQUEST_BYTES else None, path)
    if path.stat().st_size > MAX_REQUEST_BYTES:
        raise InputError("request_too_large", path=str(path))
    not_ours = InputError("not_made_by_us", path=str(path))
    try:
        values = parse_request_json(path.read_bytes())
    except InputError as error:
        if error.code in ("request_too_deep", "request_too_full"):
            raise not_ours from error
        raise
    if isinstance(values, dict):
        values.pop(MADE_BY, None)
    if not isinstance(values, dict) or _is_foreign(values):
        raise not_ours
    try:
        return GenerationRequest.from_dict({**(defaults or {}), **values}, path.parent)
    except InputError as error:
        if values.keys() <= COMMON and error.code not in ("no_start_image", "unknown_key"):
            raise not_ours from error
        raise


def _is_foreign(values: dict[str, object]) -> bool:
    """Return whether a JSON object is another program's, not a request with a mistyped or invented key."""
    if len(values) > 2 * len(REQUEST_FIELDS):
        return True
    known = values.keys() & REQUEST_FIELDS.keys()
    meant = {key: difflib.get_close_matches(key, REQUEST_FIELDS, 1, TYPO) for key in values.keys() - known}
    strange = {key for key, matches in meant.items() if not matches}
    if (known | {match for matches in meant.values() for match in matches}) <= COMMON:
        return bool(strange) or not known
    return len(strange) > 1 and (bool(strange & THEIRS) or len(strange) > len(known))


def read_packed(path: Path) -> dict[str, object] | None:
    """Read the packed request in an MP4 of ours without checking it; empty where it was left out.

    Returns None where the file is none of ours.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        comment = read_comment(file, MAX_REQUEST_BYTES)
    if _is_left_out(comment):
        return {}
    try:
        values = parse_request_json(comment or "")
    except InputError:
        return None
    if isinstance(values, dict):
        values.pop(MADE_BY, None)
    return values if isinstance(values, dict) and values.keys() >= OURS else None


def pack_request(
    request: GenerationRequest, pictures: Mapping[str, np.ndarray], seed: int
) -> dict[str, object]:
    """Make a request self-contained, as JSON values: actual seed, actual size, pictures inside.

    `pictures` are cropped, `(height, width, 3)` uint8 by their names in the request; the start picture first.
    """
    height, width = pictures[request.start_picture].shape[:2]
    packed = request.map_images(_packed_pictures(request, pictures).__getitem__)
    return dataclasses.replace(packed, seed=seed, width=width, height=height).to_dict()


def _packed_pictures(request: GenerationRequest, pictures: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the `data:` URIs of pictures by their names: whole ones, as long as there is room."""
    frames = (keyframe.image for keyframe in request.keyframes)
    uses = collections.Counter([request.start_image, request.end_image, *frames])
    packed, room = dict[str, str](), WHOLE_CHARACTERS
    for name, picture in pictures.items():
        packed[name] = (
            pack_picture(name, picture, request.crop_position) if room > 0 else to_data_uri(picture)
        )
        room -= uses[name] * len(packed[name])
    return packed


def to_comment(packed: Mapping[str, object], own_picture: np.ndarray | None = None) -> str:
    """Return the comment of a file that holds a packed request.

    The start picture is left out where the file itself is that picture, whole, as its `own_picture`.
    """
    start = packed.get("start_image")
    if start is not None and own_picture is not None and start == to_data_uri(own_picture):
        packed = {key: value for key, value in packed.items() if key != "start_image"}
    return json.dumps({MADE_BY: f"{APP} {VERSION}"} | dict(packed), ensure_ascii=False)


def write_png(path: Path, picture: np.ndarray, comment: str) -> None:
    """Write a picture `(height, width, 3)` uint8 with a comment in it, atomically.

    Where that holds a request without the key `start_image`, this picture is the request's start picture.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(COMMENT, comment)
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


def _find_neighbour(name: object, folder: Path) -> str | None:
    """Return the name of a video, which a file may have from anybody, if it is in the folder itself."""
    if not isinstance(name, str) or "\0" in name or name != Path(name).name:
        return None
    return name if os.path.isfile(folder / name) else None  # noqa: PTH113  (is_file may raise)


def _png_comment(path: Path) -> str | None:
    with path.open("rb") as file:
        text = read_text(file, COMMENT, MAX_REQUEST_BYTES)
        is_cut = text is not None and text.startswith("{") and not text.endswith("}") and not has_end(file)
    if is_cut:  # in our comment, which stands before the pixels
        raise InputError("image_cut", image=str(path), missing=100)
    return text


def _is_left_out(comment: str | None) -> bool:
    """Return whether a comment is `LEFT_OUT`, of whatever version."""
    return comment is not None and (comment == APP or comment.startswith(f"{APP} "))


def _parse_comment(comment: str | None, path: Path, own_picture: str | None = None) -> GenerationRequest:
    if _is_left_out(comment):
        raise InputError("settings_left_out", path=str(path))
    try:
        values = parse_request_json(comment or "")
    except InputError as error:
        raise InputError("not_made_by_us", path=str(path)) from error
    if not isinstance(values, dict) or not values.keys() >= OURS:
        raise InputError("not_made_by_us", path=str(path))
    values.pop(MADE_BY, None)
    if own_picture is not None:
        values.setdefault("start_image", own_picture)
    values["previous_video"] = _find_neighbour(values.get("previous_video"), path.parent)
    return GenerationRequest.from_dict(values, path.parent)

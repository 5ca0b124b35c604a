"""The page's fields as plain values by name, and the request that they make.

The page turns its values into one `GenerationRequest` here, once; a request that comes back from a video
is turned into values here, too.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers_helper.buckets import video_size
from diffusers_helper.errors import InputError
from diffusers_helper.public import open_data_uri, read_size, read_size_and_length
from diffusers_helper.request import REQUEST_FIELDS, GenerationRequest, is_data_uri

from .settings.settings import Field
from .support.once import write_once

Values = dict[str, Any]
MAX_SEED_DIGITS = 19
UNKNOWN_PICTURE = "?"
"""The start image's name while none is chosen."""
RED, BLUE = 0, 1
"""The sections whose pictures a loop copies to the even and to the odd ones."""


def _takes_kind_of(default: object) -> Callable[[object], bool]:
    """Return a check that takes values of the same kind: texts, flags, or numbers."""
    kind = type(default) if isinstance(default, bool | str) else int | float
    return lambda value: isinstance(value, kind) and isinstance(value, bool) == isinstance(default, bool)


def _is_one_of(*choices: object) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, bool) and value in choices


_NEW = GenerationRequest()
_SAME = (
    *("prompt", "seconds", "section_seconds", "end_frame_strength", "teacache", "teacache_threshold"),
    *("steps", "distilled_guidance_scale", "crf", "resolution", "keep_section_videos", "save_section_stills"),
    "embed_request",
    *("loop", "all_padding"),
)
"""The fields that a request has under the same name."""
DEFAULTS: Values = {
    **{name: getattr(_NEW, name) for name in _SAME},
    "random_seed": True,
    "seed": "0",
    "use_keyframes": False,
    "copy_keyframes": True,
    "join": True,
}
"""A form that was never touched."""
FIELDS: dict[str, Field] = {
    **{name: Field(default, _takes_kind_of(default)) for name, default in DEFAULTS.items()},
    "section_seconds": Field(_NEW.section_seconds, _is_one_of(0.5, 1)),
    "all_padding": Field(None, lambda value: value is None or _takes_kind_of(1.0)(value)),
}
"""The fields that come back at the next start; pictures and section rows do not."""
OWN_CHOICES = ("embed_request",)
"""The fields that stay as they are when a request comes back: they are about files to come."""
SEED = ("random_seed", "seed")


def renew_settings(kept: Values) -> Values:
    """Turn the fields that earlier versions kept (`mode`, `use_all_padding`) into today's."""
    renewed = {name: value for name, value in kept.items() if name not in ("mode", "use_all_padding")}
    if "mode" in kept:
        renewed.setdefault("loop", kept["mode"] == "loop")
    if kept.get("use_all_padding") is False:
        renewed.pop("all_padding", None)
    return renewed


_ELSEWHERE = {"start_image", "end_image", "crop_position", "keyframes", "previous_video"}
HIDDEN_SETTINGS = tuple(name for name in REQUEST_FIELDS if name not in FIELDS and name not in _ELSEWHERE)
"""The settings of a request that the page has no field for: kept as they came, and shown in words."""


@dataclass(frozen=True)
class Row:
    """The picture's path and the prompt of one section's row."""

    image: str | None = None
    prompt: str = ""


@dataclass(frozen=True)
class Pictures:
    """The picture files of a form: the start image (or several, a video each), the end image, the rows.

    `position` is the request's `crop_position`; `previous` the video whose last frame the start image is.
    """

    start: tuple[str, ...] = ()
    end: str | None = None
    rows: Mapping[int, Row] = field(default_factory=dict)
    position: float = 0.5
    previous: Path | None = None


def count_rows(values: Values) -> int:
    """The number of sections that the length has; 0 where the length is no number."""
    length = {key: values.get(key) for key in ("seconds", "section_seconds")}
    try:
        return GenerationRequest.from_dict({"start_image": "x", **length}).num_sections
    except InputError:
        return 0


def request_size(request: GenerationRequest) -> tuple[int, int] | None:
    """Return the video's height and width, by the start image's shape; None while that is unknown.

    Raises:
        InputError: the start image cannot be read.
    """
    if request.start_picture != UNKNOWN_PICTURE:
        return video_size(
            request.resolution, request.width, request.height, *read_size(request.start_picture)
        )
    return None if request.height is None or request.width is None else (request.height, request.width)


def section_image(rows: Mapping[int, Row], section: int, copies: bool) -> str | None:
    """The picture of a section: its own, else the red or blue one where a loop copies those."""
    own = rows.get(section, Row()).image
    if own is not None or not copies:
        return own
    return rows.get(RED if section % 2 == 0 else BLUE, Row()).image


def to_requests(values: Values, pictures: Pictures, hidden: Mapping[str, Any]) -> list[GenerationRequest]:
    """The checked requests that a filled-in form asks for: one for each start image.

    Raises:
        InputError: naming the field as a request does.
    """
    keyframes = _keyframes(values, pictures.rows)
    has_keyframe_picture = any("image" in keyframe for keyframe in keyframes)
    starts: tuple[str | None, ...] = pictures.start or ((None,) if has_keyframe_picture else ())
    if not starts:
        raise InputError("choose_start_image")
    emptied = {key: "" for key in _SAME if values[key] is None}  # which is no number to any check
    made = {key: values[key] for key in _SAME} | emptied | {"all_padding": values["all_padding"]}
    made |= {key: hidden[key] for key in HIDDEN_SETTINGS if hidden.get(key) is not None}
    made |= {"start_image": None, "end_image": pictures.end, "keyframes": keyframes}
    made["crop_position"] = pictures.position
    made["seed"] = None if values["random_seed"] else _seed(values["seed"])
    if pictures.previous is not None and values["join"]:
        height, width, _ = read_size_and_length(pictures.previous)
        made |= {"previous_video": str(pictures.previous), "height": height, "width": width}
    return [GenerationRequest.from_dict(made | {"start_image": start}) for start in starts]


def _seed(value: object) -> object:
    """Return the number in a text: a browser's numbers end at 2^53, seeds at 2^63."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_SEED_DIGITS else text


def _keyframes(values: Values, rows: Mapping[int, Row]) -> list[dict[str, object]]:
    """The rows of the sections that the length has, as a request holds them; empty ones are left out."""
    if not values["use_keyframes"]:
        return []
    keyframes: list[dict[str, object]] = []
    for section in range(count_rows(values)):
        image = section_image(rows, section, copies_pictures(values))
        prompt = rows.get(section, Row()).prompt.strip()
        own = {key: value for key, value in (("image", image), ("prompt", prompt)) if value}
        if own:
            keyframes.append({"section": section, **own})
    return keyframes


def copies_pictures(values: Values) -> bool:
    """Return whether the red and the blue picture count for all even and odd sections."""
    return bool(values["loop"] and values["copy_keyframes"])


# -- the way back ------------------------------------------------------------------------------------


def from_request(request: GenerationRequest, folder: Path) -> tuple[Values, Pictures, Values]:
    """Turn a request back into fields; pictures inside it become files in `folder`.

    Returns:
        The fields' values, the pictures, and the settings that no field holds. Width and height need no
        mention where `resolution` alone gives the same.

    Raises:
        InputError: a picture inside the request is damaged.
    """
    seed = request.seed
    values: Values = {key: getattr(request, key) for key in _SAME} | {
        "random_seed": seed is None,
        "seed": str(seed or 0),
        "use_keyframes": bool(request.keyframes),
        "copy_keyframes": False,  # each row comes back by itself
        "join": True,
    }
    named = request.map_images(lambda image: _as_file(image, folder))
    changed = {key: value for key, value in vars(request).items() if value != getattr(_NEW, key)}
    hidden = {key: changed[key] for key in HIDDEN_SETTINGS if key in changed}
    if (request.height, request.width) == request_size(dataclasses.replace(named, width=None, height=None)):
        hidden = {key: value for key, value in hidden.items() if key not in ("width", "height")}
    rows = {keyframe.section: Row(keyframe.image, keyframe.prompt) for keyframe in named.keyframes}
    start = () if named.start_image is None else (named.start_image,)
    return values, Pictures(start, named.end_image, rows, request.crop_position), hidden


def _as_file(image: str, folder: Path) -> str:
    """The path of a picture; one inside the request is written to a file named by what it holds."""
    if not is_data_uri(image):
        return image
    opened, kind = open_data_uri(image)
    content, ending = opened.read(), kind.partition("/")[2]
    name = hashlib.sha256(content).hexdigest()[:24] + (f".{ending}" if ending.isalnum() else "")
    path = folder / name
    write_once(path, lambda part: part.write_bytes(content))
    return str(path)

"""The description of a video to make, checked once, here.

Its JSON is what request files hold, and every MP4 and PNG that we write. Pictures are paths or `data:` URIs;
this module does not open them.
"""

import dataclasses
import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .buckets import SIZE_MULTIPLE
from .errors import ErrorCode, InputError
from .sections import SectionSize, count_sections

MAX_SEED = 2**63 - 1
MAX_REQUEST_BYTES = 256 * 2**20
MAX_PROMPT = 1_000_000
"""Characters of a prompt: splitting it into tokens, of which 256 count, takes 250 bytes for each."""
MAX_DIGITS = 4000
"""The most digits that Python converts to a whole number; one that has more becomes infinite."""
MAX_SECTIONS = 1000
"""Sections, more than any video has."""
MAX_VALUES = 100_000
"""The most values of a request's JSON: more would only fill the memory when it is parsed."""
SHOWN_CHARACTERS = 60
Check = Callable[[object, str], Any]
"""The function that takes the JSON value of a key, and returns the field's value or raises InputError."""

# -- checks of one value -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """A check for numbers of a range, `low` itself left out where it is open.

    Only whole ones where it `is_whole`; JSON may write these with a point.
    """

    low: float
    high: float
    is_whole: bool = False
    open_low: bool = False

    def __call__(self, value: object, key: str) -> float:
        named: dict[str, Any] = {"field": key, "value": _shown(value), "low": self.low, "high": self.high}
        if value == "":
            raise InputError("number_missing", field=key)
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.is_whole and value % 1):
            code: ErrorCode = "not_a_number_above" if self.open_low else "not_a_number"
            raise InputError("not_a_whole_number" if self.is_whole else code, **named)
        if not self.low <= value <= self.high or (self.open_low and value == self.low):  # NaN fails this too
            raise InputError("out_of_range_above" if self.open_low else "out_of_range", **named)
        return int(value) if self.is_whole else float(value)


def _whole(low: int, high: int) -> _Number:
    return _Number(low, high, is_whole=True)


def _flag(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise InputError("not_true_or_false", field=key, value=_shown(value))
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise InputError("not_a_text", field=key, value=_shown(value))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("broken_text", field=key) from error
    return value


def _prompt(value: object, key: str) -> str:
    text = _text(value, key)
    if len(text) > MAX_PROMPT:
        raise InputError("text_too_long", field=key, length=len(text), most=MAX_PROMPT)
    return text


def _picture(value: object, key: str) -> str:
    name = _text(value, key)
    if not name.strip() or "\0" in name:
        raise InputError("no_picture_name", field=key)
    return name


def _video(value: object, key: str) -> str:
    name = _text(value, key)
    if not name.strip() or "\0" in name or is_data_uri(name):
        raise InputError("no_video_name", field=key)
    return name


def _section_seconds(value: object, key: str) -> float:
    if isinstance(value, bool) or value not in (0.5, 1):
        raise InputError("section_seconds", field=key, value=_shown(value))
    return float(value)


# -- what a request holds ----------------------------------------------------------------------------


def _field(default: Any, check: Check, *, decides: bool = True) -> Any:
    """Declare a key of the request file: its default, its check, and whether it decides a section's numbers.

    A key whose default is None takes null, too; its check does not see it.
    The seed and `close_after` are compared apart, sizes show in the cropped pictures, the rest of those that
    do not decide only changes how sections are written.
    """
    return field(default=default, metadata={"check": check, "decides": decides})


@dataclass(frozen=True)
class Keyframe:
    """The picture and prompt of one section. Section 0 is generated first: it is the END of the video."""

    section: int = field(metadata={"check": _whole(-MAX_SEED, MAX_SEED)})  # its range: _check_sections
    image: str | None = _field(None, _picture)
    prompt: str = _field("", lambda value, key: "" if value is None else _prompt(value, key))


def _keyframes(value: object, key: str) -> tuple[Keyframe, ...]:
    if not isinstance(value, list):
        raise InputError("keyframes_not_a_list", field=key, value=_shown(value))
    keyframes = []
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise InputError("keyframe_not_an_object", number=number, value=_shown(item))
        checked = _check_fields(item, Keyframe, f"{key}[{number}].")
        if "section" not in checked:
            raise InputError("keyframe_without_section", number=number)
        keyframes.append(Keyframe(**checked))
    return tuple(keyframes)


@dataclass(frozen=True)
class GenerationRequest:
    """A video to make. `seed=None` asks for a random seed; `seconds` and sizes are what the user wishes.

    `width` and `height`, where given, win over `resolution`. Of a picture that is longer or higher than the
    video, `crop_position` says which part stays: 0 the left or upper one, 0.5 the centre, 1 the other end. A
    `loop` ends where it starts: see `end_picture`, `media.loop`. After `close_after` sections of the video's
    end, where given, comes the closing one, which joins the start image: the sections between are left out.
    A video that continues `previous_video` begins at the last frame there, and is also written joined to it.
    """

    start_image: str | None = _field(None, _picture)
    end_image: str | None = _field(None, _picture)
    end_frame_strength: float = _field(1.0, _Number(0, 1))
    prompt: str = _field("", _prompt)
    negative_prompt: str = _field("", _prompt)
    seed: int | None = _field(None, _whole(0, MAX_SEED), decides=False)
    seconds: float = _field(1.0, _Number(0, 120, open_low=True))
    section_seconds: float = _field(1.0, _section_seconds)
    steps: int = _field(16, _whole(1, 100))
    teacache: bool = _field(True, _flag)
    teacache_threshold: float = _field(0.40, _Number(0, 10))
    distilled_guidance_scale: float = _field(10.0, _Number(0, 32))
    guidance_scale: float = _field(1.0, _Number(0, 32))
    guidance_rescale: float = _field(0.0, _Number(0, 1))
    all_padding: float | None = _field(None, _Number(0, 10))
    loop: bool = _field(False, _flag)
    close_after: int | None = _field(None, _whole(1, MAX_SECTIONS), decides=False)
    keyframes: tuple[Keyframe, ...] = _field((), _keyframes)
    previous_video: str | None = _field(None, _video, decides=False)
    resolution: int = _field(640, _whole(64, 1536), decides=False)
    crop_position: float = _field(0.5, _Number(0, 1), decides=False)
    width: int | None = _field(None, _whole(16, 2048), decides=False)
    height: int | None = _field(None, _whole(16, 2048), decides=False)
    crf: int = _field(16, _whole(1, 51), decides=False)
    keep_section_videos: bool = _field(False, _flag, decides=False)
    save_section_stills: bool = _field(False, _flag, decides=False)
    embed_request: bool = _field(True, _flag, decides=False)

    @property
    def section_size(self) -> SectionSize:
        return SectionSize(self.section_seconds)

    @property
    def num_sections(self) -> int:
        return count_sections(self.seconds, self.section_size)

    @property
    def start_picture(self) -> str:
        """The picture that the video starts with: the start image, else the highest section's keyframe.

        Raises:
            InputError: the request has no picture that could be it (`no_start_image`).
        """
        if self.start_image is not None:
            return self.start_image
        pictures = [(k.section, k.image) for k in self.keyframes if k.image is not None]
        if not pictures:
            raise InputError("no_start_image")
        return max(pictures)[1]

    @property
    def end_picture(self) -> str | None:
        """The picture that the video ends with: the end image, else a loop's start; None for an open end."""
        if self.end_image is None and self.loop:
            return self.start_picture
        return self.end_image

    @classmethod
    def from_dict(cls, values: object, base: Path | None = None) -> "GenerationRequest":
        """Check `values` (parsed JSON) and build the request; relative paths start at `base`.

        Raises:
            InputError: naming the key, what it holds and what it may hold.
        """
        if not isinstance(values, dict):
            raise InputError("request_not_an_object", value=_shown(values))
        request = cls(**_check_fields(values, cls, ""))
        if request.previous_video is None:  # else it is the last frame there
            _ = request.start_picture  # raises where there is none
        _check_size(request)
        _check_sections(request)
        if base is None:
            return request
        if (previous := request.previous_video) is not None:
            request = dataclasses.replace(request, previous_video=str((base / previous).absolute()))
        return request.map_images(lambda name: name if is_data_uri(name) else str((base / name).absolute()))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON values that `from_dict` reads back to an equal request."""
        values = dataclasses.asdict(self)
        values["keyframes"] = [
            {key: value for key, value in dataclasses.asdict(keyframe).items() if value not in (None, "")}
            for keyframe in self.keyframes
        ]
        return values

    def map_images(self, change: Callable[[str], str]) -> "GenerationRequest":
        """Return the request with the name of each picture that it has replaced by `change(name)`."""

        def changed(name: str | None) -> str | None:
            return None if name is None else change(name)

        keyframes = tuple(dataclasses.replace(k, image=changed(k.image)) for k in self.keyframes)
        start, end = changed(self.start_image), changed(self.end_image)
        return dataclasses.replace(self, start_image=start, end_image=end, keyframes=keyframes)


REQUEST_FIELDS = {known.name: known for known in dataclasses.fields(GenerationRequest)}


def field_limits(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a number in a request."""
    check = REQUEST_FIELDS[name].metadata["check"]
    return check.low, check.high


def is_field_value(name: str, value: object) -> bool:
    """Return whether a request takes a value for a field."""
    try:
        _check_fields({name: value}, GenerationRequest, "")
    except InputError:
        return False
    return True


def is_data_uri(image: str) -> bool:
    """Return whether a picture's name holds the picture itself (`data:image/...;base64,...`)."""
    return image.startswith("data:")


def parse_request_json(text: str | bytes) -> object:
    """Parse a request's JSON text. Raises InputError instead of the parser's errors."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # Windows' editors put a mark in front
        if sum(text.count(sign) for sign in ",[{") > MAX_VALUES:
            raise InputError("request_too_full", most=MAX_VALUES)
        return json.loads(text, parse_int=lambda d: int(d) if len(d) <= MAX_DIGITS else float(d))
    except UnicodeDecodeError as error:
        raise InputError("request_not_utf8") from error
    except ValueError as error:
        raise InputError("request_not_json", reason=str(error)) from error
    except RecursionError as error:
        raise InputError("request_too_deep") from error


# -- checks of all values --------------------------------------------------------------------------


def _check_fields(values: dict, declared: type, prefix: str) -> dict[str, Any]:
    """Check all values of one object of a request, whose keys are the fields of the dataclass `declared`."""
    known, checked = {each.name: each for each in dataclasses.fields(declared)}, {}
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key[:SHOWN_CHARACTERS], known, n=1, cutoff=0.0)[0]
            raise InputError("unknown_key", field=prefix + _shortened(key), nearest=nearest)
    for key, value in values.items():
        is_left_out = value is None and known[key].default is None
        checked[key] = None if is_left_out else known[key].metadata["check"](value, prefix + key)
    return checked


def _check_size(request: GenerationRequest) -> None:
    if (request.width is None) != (request.height is None):
        raise InputError("width_without_height")
    for key in ("width", "height"):
        size = getattr(request, key)
        if size is not None and size % SIZE_MULTIPLE:
            near = round(size / SIZE_MULTIPLE) * SIZE_MULTIPLE
            raise InputError("size_not_multiple", field=key, value=size, multiple=SIZE_MULTIPLE, nearest=near)


def _check_sections(request: GenerationRequest) -> None:
    count, seen = request.num_sections, set()
    for keyframe in request.keyframes:
        if keyframe.section in seen:
            raise InputError("keyframe_twice", section=keyframe.section)
        seen.add(keyframe.section)
        if not 0 <= keyframe.section < count:
            place = {"section": keyframe.section, "sections": count, "last": count - 1}
            raise InputError("keyframe_out_of_range", **place)
        if keyframe.image is None and not keyframe.prompt.strip():
            raise InputError("keyframe_empty", section=keyframe.section)
    if request.close_after is not None and request.close_after >= count:
        raise InputError("close_after_too_late", value=request.close_after, sections=count)


def _shown(value: object) -> str:
    """Return a value as a short piece of JSON for a message."""
    if isinstance(value, list | dict):  # what is inside may be megabytes, or nested a thousandfold
        return "[...]" if isinstance(value, list) else "{...}"
    return _shortened(json.dumps(value, ensure_ascii=False))


def _shortened(text: str) -> str:
    """Return a short piece of a text, with escapes for lone surrogates, which cannot be encoded."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."

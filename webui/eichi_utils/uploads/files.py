"""The files that users upload, and the picture or request in each."""

import contextlib
import dataclasses
import threading
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.public import MAX_MISSING, load_request, read_image
from diffusers_helper.request import GenerationRequest, is_data_uri

from ..support.once import write_once
from .cleanup import delete_upload

MB = 1_000_000
MAX_UPLOAD = 400 * MB
"""Bytes of all files that are sent at once. A picture has a tenth of that; a video of two minutes that this
app made, with its pictures inside, less than half."""
SHOWN_CHARACTERS = 200
VIEW, PARTIAL = ".view.png", ".partial.png"
"""Endings of files beside an upload: what the page shows of it, and what there is of one that is cut."""
MAX_VIEW = 1024
"""Pixels of a view's longer side."""
_one_at_a_time = threading.Lock()
"""The lock for reading large requests: many pages may send some at the same time."""


def uploaded_path(file: Any, folder: Path) -> str | None:
    """Return the path in what gradio hands over for a file (`{"path": ...}`), None where there is none.

    Of a view it is the path of the picture itself.

    Raises:
        InputError: it does not lie in `folder`, where all uploads do. Gradio checks that only where the
            browser asks for it, and a request made by hand could name any picture of this computer. Or it is
            nothing that gradio hands over for a file, like a bare path.
    """
    inner = isinstance(file, dict) and (file.get("image") or file.get("video"))
    if inner:
        return uploaded_path(inner, folder)
    path = file.get("path") if isinstance(file, dict) else file
    if path is not None and not (isinstance(file, dict) and lies_in(path, folder)):
        raise InputError("image_missing", image=str(path)[:SHOWN_CHARACTERS])
    return path.removesuffix(VIEW) if isinstance(path, str) else path


def uploaded_paths(files: object, folder: Path) -> list[str]:
    """Return all paths in what gradio hands over for several files; raises as `uploaded_path` does."""
    paths = (uploaded_path(file, folder) for file in (files if isinstance(files, list) else []))
    return [path for path in paths if path is not None]


def lies_in(path: object, folder: Path) -> bool:
    """Return whether it is the path of something in that folder, with all links followed."""
    try:
        if not isinstance(path, str) or is_share(path, folder):
            return False
        return Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def is_share(path: object, folder: Path) -> bool:
    """Return whether it is a path on a computer (`//host/share`) other than that of `folder`.

    On Windows, where `/??/` begins one, too, even asking for such a file would send the user's credentials.
    """
    drive, *own = (PureWindowsPath(str(name)).drive.lower() for name in (path, folder, folder.resolve()))
    return str(path).replace("\\", "/").startswith(("//", "/??/")) and drive not in filter(None, own)


def checked_picture(path: str) -> str:
    """Return the path of a picture that can be read, of which there is a view now.

    Raises:
        InputError: it is no picture that can be used; it does not stay, but where it can be read in part.
    """
    try:
        make_view(path)
    except (EngineError, MemoryError) as error:
        if not is_readable_in_part(error):
            delete_upload(path)
        if isinstance(error, InputError):
            _name_only(error)
        raise
    return path


def make_view(path: str) -> str:
    """Return the path of what a browser shows of a picture: what the engine reads from it, at most so large.

    Browsers know fewer kinds than the engine, and differ about colours, transparency and turned pictures.

    Raises:
        InputError: as `read_image` does.
    """
    view = Path(path + VIEW)
    if not view.is_file():
        image = Image.fromarray(read_image(path))
        image.thumbnail((MAX_VIEW, MAX_VIEW), Image.Resampling.LANCZOS)
        _write_png(image, view)
    return str(view)


def is_readable_in_part(error: Exception) -> bool:
    """Return whether it is the error about a picture that is cut, of which enough is there."""
    if not isinstance(error, InputError) or error.code != "image_cut":
        return False
    missing = error.values["missing"]
    return isinstance(missing, int | float) and missing <= MAX_MISSING


def read_in_part(path: str) -> str:
    """Return the path of a picture that holds what can be read of one that is cut."""
    part_path = Path(path + PARTIAL)
    if not part_path.is_file():
        image = Image.fromarray(read_image(path, partial=True))
        _write_png(image, part_path)
    return str(part_path)


def _write_png(image: Image.Image, path: Path) -> None:
    write_once(path, lambda part: image.save(part, "PNG", compress_level=1))


def is_video(path: str) -> bool:
    return Path(path).suffix.lower() in (".mp4", ".m4v", ".mov")


def embedded_request(path: str) -> GenerationRequest:
    """Return the request inside one of our own MP4 or PNG files.

    Raises:
        InputError: the file holds none, or one that names files of this computer instead of holding pictures.
    """
    file = Path(path)
    if not _is_mp4_or_png(file):
        raise InputError("not_made_by_us", path=file.name)
    try:
        with _one_at_a_time:
            request = dataclasses.replace(
                load_request(file), previous_video=None
            )  # an upload has none beside it
    except InputError as error:
        _name_only(error)
        raise
    if not all(is_data_uri(image) or Path(image) == file.absolute() for image in _images(request)):
        raise InputError("not_made_by_us", path=file.name)
    return request


def check_embedded_pictures(request: GenerationRequest) -> None:
    """Read every picture of a request once, before any of them is written anywhere.

    Raises:
        InputError: one cannot.
    """
    for image in _images(request):
        read_image(image)


def _images(request: GenerationRequest) -> list[str]:
    keyframes = (keyframe.image for keyframe in request.keyframes)
    images = (request.start_image, request.end_image, *keyframes)
    return [image for image in dict.fromkeys(images) if image is not None]


def delete_refused(error: EngineError, folder: Path) -> EngineError:
    """Return the error after deleting the upload that it is about, which it then calls by its name alone."""
    path = error.values.get("image")
    if isinstance(error, InputError) and isinstance(path, str) and lies_in(path, folder):
        delete_upload(path)
        _name_only(error)
    return error


def _name_only(error: InputError) -> None:
    """Replace paths by names: no user knows where uploads lie."""
    for key in ("image", "path"):
        if key in error.values:
            error.values[key] = Path(str(error.values[key])).name


def _is_mp4_or_png(file: Path) -> bool:
    """Return whether the content is an MP4 or PNG, whatever the name; a request file of JSON is neither."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        start = opened.read(12)
        return start.startswith(b"\x89PNG") or start[4:8] == b"ftyp"
    return False

"""The last frames of videos as start images, each with a note beside it that names its video.

They lie in a folder into which no browser can upload anything, so that none can name a file of this computer.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from diffusers_helper.public import new_file, read_last_frame, read_small

FOLDER = "continued"
NOTE = ".video"
"""The ending of the note beside a picture."""
MAX_NOTE_BYTES = 2**16


def save_last_frame(video: Path, uploads: Path) -> str:
    """Save a video's last frame as a start image; returns its path.

    Raises:
        InputError: the video is missing or damaged.
        MachineError: the picture cannot be written.
    """
    frame = Image.fromarray(read_last_frame(video))
    return _save(video, uploads, ".png", lambda part: frame.save(part, "PNG"))


def copy_last_frame(picture: str, video: Path, uploads: Path) -> str:
    """Copy a picture that is a video's last frame as a start image; returns its path.

    Raises:
        MachineError: the copy cannot be written.
    """
    return _save(video, uploads, Path(picture).suffix, lambda part: shutil.copyfile(picture, part))


def find_previous(picture: str, uploads: Path) -> Path | None:
    """Return the video that a start image continues; None where it continues none that is there."""
    path = Path(picture)
    if path.parent != uploads / FOLDER:
        return None
    try:
        video = Path(os.fsdecode(read_small(path.with_name(path.name + NOTE), MAX_NOTE_BYTES)))
        return video if video.is_file() else None
    except (OSError, ValueError):
        return None


def _save(video: Path, uploads: Path, ending: str, write: Callable[[Path], object]) -> str:
    path = uploads / FOLDER / (secrets.token_hex(8) + ending)
    with new_file(path, flush=False) as part:
        write(part)
    with new_file(path.with_name(path.name + NOTE), flush=False) as part:
        part.write_bytes(os.fsencode(video.absolute()))
    return str(path)

"""The folder for videos: by a name inside of the app's folder, never a way out of it.

Knows what else the app keeps there. What one part of a name may be, `output_names` knows.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from diffusers_helper.errors import InputError, MachineError

from .output_names import is_plain_name

MAX_LENGTH = 100
"""Of the whole name: on Windows a path has 260 characters for this app's folder, it and the video's name."""
OWN_FOLDERS = frozenset(
    {
        "__pycache__",
        "cache",
        "eichi_utils",
        "hf_download",
        "logs",
        "presets",
        "settings",
        "static",
        "temp",
    }
)
"""What the app keeps for itself in its folder."""
_OUTSIDE = re.compile(r"[/\\~]|[a-z]:", re.IGNORECASE)
"""How names begin that do not start here: a root, a network share, a home, a drive."""


def resolve_output(name: str, base: Path) -> Path:
    """The folder called `name` inside of `base`; it need not exist. `/` and `\\` both part its levels.

    Raises:
        InputError: it is no name on every system, leads out of `base`, belongs to the app, or is a file.
    """
    if not name.strip():
        raise InputError("output_folder_empty")
    if len(name) > MAX_LENGTH:
        raise InputError("output_folder_too_long", name=name[:20], length=MAX_LENGTH)
    parts = [part for part in re.split(r"[/\\]", name) if part]
    if _OUTSIDE.match(name) or ".." in parts:
        raise InputError("output_folder_outside", name=name)
    for part in parts:
        if not is_plain_name(part):
            raise InputError("bad_folder_name", name=part)
    path = base.joinpath(*parts)
    _check_place(name, path, base)
    return path


def _check_place(name: str, path: Path, base: Path) -> None:
    """Look at the disk: links may lead elsewhere, and a file may have the name."""
    real = _real_parts(path, base)
    if real is None:
        raise InputError("output_folder_leads_out", name=name)
    if not real or {real[0].casefold(), path.relative_to(base).parts[0].casefold()} & OWN_FOLDERS:
        raise InputError("output_folder_of_app", name=name)
    levels = [path, *path.parents]
    for level in levels[: levels.index(base)]:
        if os.path.lexists(level) and not os.path.isdir(level):  # noqa: PTH112  (is_dir may raise)
            raise InputError("output_folder_is_file", name=name)


def _real_parts(path: Path, base: Path) -> tuple[str, ...] | None:
    """The parts of `path` below `base` with all links followed; None where they lead out or in circles.

    Windows' short names (`HF_DOW~1`) become long ones, too.
    """
    try:
        return path.resolve().relative_to(base.resolve()).parts
    except (OSError, RuntimeError, ValueError):
        return None


def open_in_file_manager(path: Path) -> bool:
    """Show a folder to who sits at this computer; it is made if missing. Does not wait.

    Returns:
        False where nothing can show it, as on a server without a screen.

    Raises:
        MachineError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError("cannot_write", path=str(path), reason=reason) from error
    startfile = getattr(os, "startfile", None)  # there is one on Windows only
    try:
        if startfile is not None:
            startfile(str(path.absolute()))
            return True
        return _start_opener(path.absolute())
    except OSError:
        return False


def _start_opener(path: Path) -> bool:
    is_mac = sys.platform == "darwin"
    has_screen = is_mac or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    command = shutil.which("open" if is_mac else "xdg-open")
    if command is None or not has_screen:
        return False
    process = subprocess.Popen(
        [command, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the app's terminal is not meant for it
    )
    threading.Thread(target=process.wait, name="file manager", daemon=True).start()  # leaves no zombie
    return True

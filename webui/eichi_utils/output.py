"""The output folder: names that every system takes, never a way out of the app's folder."""

import os
import re
import shutil
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from diffusers_helper.errors import InputError
from diffusers_helper.public import disk_errors

MAX_LENGTH = 100
"""Characters of a name: on Windows a path has 260 for this app's folder, the output folder and the video."""
MAX_BYTES = 200
"""Bytes of a file's name: file systems take 255, and the longest ending that we add has 21."""
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""The Unicode categories of what cannot be seen in a name: controls, surrogates, line ends."""
OWN_FOLDERS = frozenset(
    {"__pycache__", "cache", "eichi_utils", "hf_download", "logs", "presets", "settings", "static", "temp"}
)
"""The folders that the app keeps for itself in its folder."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_OUTSIDE = re.compile(r"[/\\~]|[a-z]:", re.IGNORECASE)
"""The beginnings of names that lead elsewhere: a root, a network share, a home, a drive."""


def check_name(name: str) -> str:
    """Return `name` if Windows and Linux both take it as a plain file name.

    Raises:
        InputError: it holds a path, a reserved word or a character that is not allowed.
    """
    if not is_plain_name(name):
        raise InputError("bad_name", name=name[:60], length=MAX_LENGTH)
    return name


def is_plain_name(name: str) -> bool:
    """Return whether Windows and Linux both take `name` for a file or a folder, with room for our endings."""
    bad = _FORBIDDEN.search(name) or _RESERVED.fullmatch(name) or name.strip(" .") != name
    bad = bad or any(unicodedata.category(character) in INVISIBLE for character in name)
    return not bad and 0 < len(name) <= MAX_LENGTH and len(name.encode()) <= MAX_BYTES


def new_name(folder: Path, taken: Collection[str] = ()) -> str:
    """Return a name that nothing in `folder` has yet and that is not `taken`: the date and time."""
    base = datetime.now().strftime("%y%m%d_%H%M%S_%f")[:-3]
    name, number = base, 1
    endings = (".mp4", ".png", ".job")
    while name in taken or any(os.path.lexists(folder / f"{name}{ending}") for ending in endings):
        number += 1
        name = f"{base}_{number}"
    return name


def resolve_output(name: str, base: Path) -> Path:
    """Return the folder called `name` inside `base`; it need not exist. `/` and `\\` both part its levels.

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
    _check_on_disk(name, path, base)
    return path


def _check_on_disk(name: str, path: Path, base: Path) -> None:
    """Refuse a folder that a link leads elsewhere, or whose name a file has."""
    try:
        # Windows' short names (`HF_DOW~1`) become long ones, too
        real = path.resolve().relative_to(base.resolve()).parts
    except (OSError, RuntimeError, ValueError) as error:  # the links lead out, or in circles
        raise InputError("output_folder_leads_out", name=name) from error
    if not real or {real[0].casefold(), path.relative_to(base).parts[0].casefold()} & OWN_FOLDERS:
        raise InputError("output_folder_of_app", name=name)
    levels = [path, *path.parents]
    for level in levels[: levels.index(base)]:
        if os.path.lexists(level) and not os.path.isdir(level):  # noqa: PTH112  (is_dir may raise)
            raise InputError("output_folder_is_file", name=name)


def open_in_file_manager(path: Path) -> bool:
    """Show a folder on this computer's screen without waiting; a missing one is made.

    Returns:
        False where nothing can show it, as on a server without a screen.

    Raises:
        MachineError: the folder cannot be made.
    """
    with disk_errors(path, path):
        path.mkdir(parents=True, exist_ok=True)
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

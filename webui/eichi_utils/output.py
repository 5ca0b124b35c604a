"""The output folder: a name inside the app's folder that every system takes, or a whole path."""

import contextlib
import os
import re
import secrets
import unicodedata
from collections.abc import Collection
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.public import delete_file, disk_errors

DEFAULT_OUTPUT = "outputs"
"""The output folder in the app's folder, unless another is chosen."""
MAX_LENGTH = 100
"""Characters of a name: on Windows a path has 260 for this app's folder, the output folder and the video."""
MAX_PATH_LENGTH = 200
"""Characters of a whole path: on Windows 260 hold the video's name, too."""
MAX_BYTES = 200
"""Bytes of a file's name: file systems take 255, and the longest ending that we add has 21."""
UNTYPABLE = {"Cc", "Cs", "Zl", "Zp"}
"""The Unicode categories of what no field of a page can hold: controls, surrogates, line ends."""
INVISIBLE = UNTYPABLE | {"Cf"}
"""The Unicode categories of what cannot be seen in a name."""
MAX_LEVELS = 20
"""Levels of a folder that are looked for in another home."""
OWN_FOLDERS = frozenset(
    {"__pycache__", "cache", "eichi_utils", "hf_download", "logs", "presets", "settings", "static", "temp"}
)
"""The folders that the app keeps for itself in its folder."""
PROGRAM = Path(__file__).resolve().parents[2]
PROGRAM_FOLDERS = frozenset(
    {
        ".git",
        "benchmarks",
        "demo_models",
        "diffusers_helper",
        "docs",
        "examples",
        "locales",
        "scripts",
        "tests",
    }
    | {"uv", "venv", "webui"}
)
"""The folders of the program, which an update or a new installation replaces."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_NETWORK = re.compile(r"[/\\]{2}")
"""The beginning of a network share, or of a device: Windows would sign in there with the user's name."""
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
    bad = bad or _holds(name, INVISIBLE)
    return not bad and 0 < len(name) <= MAX_LENGTH and len(name.encode()) <= MAX_BYTES


def _holds(name: str, categories: Collection[str]) -> bool:
    return any(unicodedata.category(character) in categories for character in name)


def new_name(folder: Path, taken: Collection[str] = ()) -> str:
    """Return a name that nothing in `folder` has yet and that is not `taken`: the date and time."""
    base = datetime.now().strftime("%y%m%d_%H%M%S_%f")[:-3]
    name, number = base, 1
    endings = (".mp4", ".png", ".job")
    while name in taken or any(os.path.lexists(folder / f"{name}{ending}") for ending in endings):
        number += 1
        name = f"{base}_{number}"
    return name


def resolve_output(name: str, base: Path, *, anywhere: bool = False) -> Path:
    """Return the folder called `name` inside `base`; it need not exist. `/` and `\\` both part its levels.

    Args:
        anywhere: a whole path (`~` is the user's home) may be any folder but the app's own ones.

    Raises:
        InputError: it is no name on every system, leads out of `base`, belongs to the app, or is a file.
        MachineError: its drive is not there.
    """
    if anywhere and (path := whole_path(name)) is not None and os.path.isdir(path):  # noqa: PTH112
        return _check_whole(name, path, base)  # its name may end in spaces
    name = name.strip()
    if not name:
        raise InputError("output_folder_empty")
    if (path := whole_path(name)) is not None and anywhere:
        return _check_whole(name, path, base)
    if len(name) > MAX_LENGTH:
        raise InputError("output_folder_too_long", name=name[:20], length=MAX_LENGTH)
    parts = [part for part in re.split(r"[/\\]", name) if part]
    if _OUTSIDE.match(name) or ".." in parts:
        if anywhere:
            raise InputError("output_folder_not_whole", name=name, example=str(Path.home() / "Videos"))
        raise InputError("output_folder_outside", name=name)
    for part in parts:
        if not is_plain_name(part):
            raise InputError("bad_folder_name", name=part)
    path = base.joinpath(*parts)
    _check_on_disk(name, path, base)
    return path


def whole_path(name: str) -> Path | None:
    """Return the path that `name` is from its root or the user's home on; None where it is only a name.

    Looks at no disk.

    Raises:
        InputError: it is on a network share.
    """
    if _NETWORK.match(name):
        raise InputError("output_folder_network", name=name[:MAX_LENGTH])
    path = Path(os.path.expanduser(name) if re.match(r"~([/\\]|$)", name) else name)  # noqa: PTH111  (never raises)
    return path if path.is_absolute() and ".." not in path.parts else None


def _check_whole(name: str, path: Path, base: Path) -> Path:
    """Return a folder that may be anywhere; levels that are there may have any name that a page can show."""
    if len(str(path)) > MAX_PATH_LENGTH:
        raise InputError("output_folder_too_long", name=name[:20], length=MAX_PATH_LENGTH)
    if (part := next((part for part in path.parts if _holds(part, UNTYPABLE)), None)) is not None:
        raise InputError("bad_folder_name", name=part)
    for level in (path, *path.parents):
        if os.path.isdir(level):  # noqa: PTH112  (is_dir may raise)
            break
        if level == level.parent:
            raise MachineError("disk_away", path=str(level))
        if not is_plain_name(level.name):
            raise InputError("bad_folder_name", name=level.name)
    _check_on_disk(name, path, base, anywhere=True)
    return path


def _check_on_disk(name: str, path: Path, base: Path, *, anywhere: bool = False) -> None:
    """Refuse a folder of the app, one whose name a file has and, unless it may be anywhere, one that a link
    leads out of `base`."""
    try:
        real, home = path.resolve(), base.resolve()  # Windows' short names (`HF_DOW~1`) become long ones, too
    except (OSError, RuntimeError, ValueError) as error:  # the links lead in circles
        raise InputError("output_folder_leads_out", name=name) from error
    if not anywhere and not real.is_relative_to(home):
        raise InputError("output_folder_leads_out", name=name)
    if _is_of_app(path, base) or _is_of_app(real, home):
        raise InputError("output_folder_of_app", name=name)
    levels = [path, *path.parents]
    for level in levels if anywhere else levels[: levels.index(base)]:
        if os.path.lexists(level) and not os.path.isdir(level):  # noqa: PTH112  (is_dir may raise)
            raise InputError("output_folder_is_file", name=name)


def _is_of_app(path: Path, base: Path) -> bool:
    """Return whether the app needs a folder for something else."""
    for root, own in ((base, OWN_FOLDERS), (PROGRAM, PROGRAM_FOLDERS)):
        if path.is_relative_to(root):
            parts = path.relative_to(root).parts
            return not parts or parts[0].casefold() in own
    return False


def try_folder(folder: Path) -> None:
    """Write a file in a folder, and leave all as it was: a missing folder is made and deleted again.

    Raises:
        MachineError: it cannot be made, or nothing can be written there.
    """
    new = [level for level in (folder, *folder.parents) if not os.path.isdir(level)]  # noqa: PTH112
    with disk_errors(folder, folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"{secrets.token_hex(8)}.part"
            probe.write_bytes(b"?")
            delete_file(probe)
        finally:
            for level in new:
                with contextlib.suppress(OSError):  # it was not made, or somebody uses it already
                    level.rmdir()


def portable_path(path: Path, home: Path) -> str:
    """Return a path as it is stored: relative (with `/`) where it lies in `home`, which may be moved."""
    for inner, base in ((path, home), (Path(os.path.realpath(path)), Path(os.path.realpath(home)))):
        if inner.is_relative_to(base):
            return inner.relative_to(base).as_posix()
    return str(path)


def find_stored_folder(stored: str, home: Path, default: Path, marker: Path) -> Path:
    """Return the output folder that `portable_path` stored; those of an earlier version are all absolute.

    One below the home before a move is the one below `home` now. Where a folder elsewhere is away, `default`
    takes its place.

    Args:
        marker: a path relative to home that no two homes have, unless one is a copy of the other.
    """
    absolute = PureWindowsPath(stored).is_absolute() or PurePosixPath(stored).is_absolute()
    folder = Path(stored) if absolute else home / stored
    if folder in (home, default) or folder.is_relative_to(home):
        return folder
    if os.path.isdir(folder):  # noqa: PTH112  (is_dir may raise)
        copied = (parent for parent in (folder, *folder.parents) if os.path.lexists(parent / marker))
        return next((home / folder.relative_to(parent) for parent in copied), folder)
    parts = [part for part in re.split(r"[/\\]", stored) if part][-MAX_LEVELS:]
    tails = (parts[first:] for first in range(len(parts)) if parts[first].casefold() not in OWN_FOLDERS)
    below = (home.joinpath(*tail) for tail in tails if ".." not in tail and not _OUTSIDE.match(tail[0]))
    return next((path for path in below if os.path.isdir(path)), default)  # noqa: PTH112

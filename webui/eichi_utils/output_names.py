"""Names of output files: only names, on every system, never a way out of the output folder."""

import re
from datetime import datetime
from pathlib import Path

from diffusers_helper.errors import InputError

MAX_LENGTH = 100
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)


def check_name(name: str) -> str:
    """Return `name` if Windows and Linux both take it as a plain file name.

    Raises:
        InputError: it holds a path, a reserved word or a character that is not allowed.
    """
    bad = _FORBIDDEN.search(name) or _RESERVED.fullmatch(name) or name.strip(" .") != name
    if bad or not name or len(name) > MAX_LENGTH or len(name.encode("utf-8", "replace")) > 200:
        raise InputError("bad_name", name=name[:60], length=MAX_LENGTH)
    return name


def new_name(folder: Path) -> str:
    """A name that nothing in `folder` has yet: the date and time."""
    base = datetime.now().strftime("%y%m%d_%H%M%S_%f")[:-3]
    name, number = base, 1
    while any((folder / f"{name}{ending}").exists() for ending in (".mp4", ".png", ".job")):
        number += 1
        name = f"{base}_{number}"
    return name

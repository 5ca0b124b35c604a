"""Names of output files: only names, on every system, never a way out of the output folder."""

import os
import re
import unicodedata
from datetime import datetime
from pathlib import Path

from diffusers_helper.errors import InputError

MAX_LENGTH = 100
MAX_BYTES = 200
"""File systems take 255; the longest ending that we add has 21."""
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of what cannot be seen in a name: controls, halves of characters, line ends."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)


def check_name(name: str) -> str:
    """Return `name` if Windows and Linux both take it as a plain file name.

    Raises:
        InputError: it holds a path, a reserved word or a character that is not allowed.
    """
    if not is_plain_name(name):
        raise InputError("bad_name", name=name[:60], length=MAX_LENGTH)
    return name


def is_plain_name(name: str) -> bool:
    """Whether Windows and Linux both take `name` for a file or a folder, with room for our endings."""
    bad = _FORBIDDEN.search(name) or _RESERVED.fullmatch(name) or name.strip(" .") != name
    bad = bad or any(unicodedata.category(character) in UNSEEN for character in name)
    return not bad and 0 < len(name) <= MAX_LENGTH and len(name.encode()) <= MAX_BYTES


def new_name(folder: Path) -> str:
    """A name that nothing in `folder` has yet: the date and time."""
    base = datetime.now().strftime("%y%m%d_%H%M%S_%f")[:-3]
    name, number = base, 1
    while any(os.path.lexists(folder / f"{name}{ending}") for ending in (".mp4", ".png", ".job")):
        number += 1
        name = f"{base}_{number}"
    return name

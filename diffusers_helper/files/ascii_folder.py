"""Folders for libraries that misread other letters than ASCII in paths on Windows."""

import contextlib
import ctypes
import hashlib
import os
import sys
from pathlib import Path


def ascii_folder(folder: Path) -> Path:
    """Return `folder`, on Windows where possible with an ASCII path: its short name, else one elsewhere."""
    if sys.platform != "win32":
        return folder
    name = hashlib.sha256(str(folder).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    roots = filter(None, map(os.environ.get, ("LOCALAPPDATA", "PROGRAMDATA")))
    for path in (folder, *(Path(root, "EndframeIchi", name) for root in roots)):
        if str(path).isascii():
            return path
        with contextlib.suppress(OSError):  # only what is there has a short name, on some disks
            path.mkdir(parents=True, exist_ok=True)
        short = ctypes.create_unicode_buffer(260)
        ctypes.windll.kernel32.GetShortPathNameW(str(path), short, len(short))
        if short.value and short.value.isascii():
            return Path(short.value)
    return folder

"""The folders in which unfinished videos of `--headless` wait for the next run of the same name."""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path

KEPT_DAYS = 30
"""Days after which an unfinished video that nobody resumed is deleted."""
KEPT_ALWAYS = 3
"""The number of newest videos that stay all the same: a computer's clock may be wrong by years."""
DIGITS = 12


def work_folder(temp: Path, output: Path, name: str) -> Path:
    """Return the working folder of the video `output/name.mp4`: the same one in every run."""
    target = os.path.normcase(os.path.realpath(output / name))
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:DIGITS]
    return temp / "headless" / digest


def delete_stale(temp: Path) -> None:
    """Delete working folders that have not changed for `KEPT_DAYS`, all but the newest few."""
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    with contextlib.suppress(OSError):  # there are none yet
        folders = [path for path in (temp / "headless").iterdir() if path.is_dir()]
        for folder in sorted(folders, key=_newest, reverse=True)[KEPT_ALWAYS:]:
            if _newest(folder) < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _newest(folder: Path) -> float:
    """Return the time of the last change in a folder."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))

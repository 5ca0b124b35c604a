"""Two windows of one app folder don't install at once. Knows nothing of what is installed.

Runs before any package is installed: the standard library only.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def one_at_a_time(root: Path, waiting: Callable[[], None], poll_seconds: float = 0.5) -> Iterator[None]:
    """Hold the folder's lock in the block. Where another process has it, call `waiting` once, and wait.

    The lock ends with the process that holds it, however that ends.
    """
    with _lock_path(root).open("a+b") as lock:
        told = False
        while not _take(lock.fileno()):
            if not told:
                waiting()
                told = True
            time.sleep(poll_seconds)
        yield


def _lock_path(root: Path) -> Path:
    """Outside the app's folder, because making the virtual environment anew empties that one."""
    user = ""  # on Windows, the folder is the user's own
    if sys.platform != "win32":
        user = str(os.getuid())
    name = hashlib.sha256(f"{user}\n{root.resolve()}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"endframe-ichi-{name}.lock"


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

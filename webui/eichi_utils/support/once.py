"""The writing of files that are made again from others, and whose names tell what they hold."""

import threading
from collections.abc import Callable
from pathlib import Path

from diffusers_helper.public import disk_errors, new_file

_one_at_a_time = threading.Lock()


def write_once(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file, unless it is there already: of two clicks, the second one waits for it.

    Raises:
        MachineError: the file cannot be written.
    """
    with _one_at_a_time:
        if not path.is_file():
            with disk_errors(path.parent, path), new_file(path, flush=False) as part:
                write(part)

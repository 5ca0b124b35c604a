"""Keeping the computer awake while it works, but not its display; or nothing, where nobody can be asked."""

import contextlib
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator

ES_CONTINUOUS, ES_SYSTEM_REQUIRED = 0x80000000, 0x00000001
"""Flags of Windows' SetThreadExecutionState."""


@contextlib.contextmanager
def keep_awake() -> Iterator[None]:
    """Let the block's thread keep Windows, and systemd's Linux, awake until the block or the process ends."""
    if sys.platform == "win32":
        set_state = ctypes.windll.kernel32.SetThreadExecutionState
        set_state(ES_CONTINUOUS | ES_SYSTEM_REQUIRED)
        try:
            yield
        finally:
            set_state(ES_CONTINUOUS)
    else:
        with contextlib.ExitStack() as exits:
            if program := shutil.which("systemd-inhibit"):
                exits.enter_context(_inhibited(program))
            yield


@contextlib.contextmanager
def _inhibited(program: str) -> Iterator[None]:
    """Run systemd's inhibitor in the block, around a program that ends with its input: with this process."""
    command = [
        program,
        "--what=sleep:idle",
        "--who=Endframe Ichi",
        "--why=working",
        "--mode=block",
        "cat",
    ]
    quiet = subprocess.DEVNULL
    try:
        inhibitor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    except OSError:
        yield
        return
    with inhibitor:  # its end closes the input
        yield

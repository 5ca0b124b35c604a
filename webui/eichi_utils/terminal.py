"""Lines on a terminal, whatever is in them and whatever it can show, and exit statuses."""

import _thread
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

from .output import INVISIBLE

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 1, 2, 130
ENDS = (2, 5, 6)
"""Windows' numbers of the window being closed, logging off and shutting down."""


def report(line: str) -> None:
    """Write a line to the error stream, above a progress bar if there is one."""
    with tqdm.external_write_mode(file=sys.stderr):
        write_line(line, sys.stderr)


def ask(question: str) -> bool:
    """Ask on the terminal, where there is somebody to answer; True for an answer that begins with Y."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    report(question)
    return sys.stdin.readline().strip().lower().startswith("y")


def write_line(text: str, stream: TextIO) -> None:
    """Write text as one line, with escape codes for characters that are invisible or that the terminal lacks.

    File names and requests come from anywhere. Once nobody reads the stream, it leads nowhere.
    """
    invisible = (letter for letter in text if unicodedata.category(letter) in INVISIBLE)
    hidden = {ord(letter): ascii(letter)[1:-1] for letter in invisible}
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.translate(hidden).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except OSError:  # what it still holds must not make the exit status another one
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def stop_on_ctrl_c(stop: threading.Event, message: str) -> Iterator[None]:
    """Set `stop` and report the message at the first Ctrl-C; the second one ends the block at once."""

    def handle(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        report(message)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop_when_closed() -> None:
    """Make closing the window, on Windows, do what Ctrl-C does; without it, this process would be killed."""
    if sys.platform != "win32":
        return

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)
    def handle(event: int) -> bool:
        if event in ENDS:
            _thread.interrupt_main()
            time.sleep(5)  # Windows waits no longer, and ends this process when the handler does
        return event in ENDS

    ctypes.windll.kernel32.handler = handle  # which must not be freed
    ctypes.windll.kernel32.SetConsoleCtrlHandler(handle, True)

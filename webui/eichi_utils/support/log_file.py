"""The log file for support: what the app and its engine tell, in a few files of limited size.

Several processes may write it at once (the page, and videos made on the terminal), and a record that cannot
be written is lost, nothing else. So the file is open for the moment of a record only: an open file cannot be
renamed on Windows. Knows no job and no page.
"""

import argparse
import contextlib
import logging
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock

from .failures import versions
from .redaction import redact

logger = logging.getLogger(__name__)

FOLDER = "logs"
NAME = "endframe_ichi"
MAX_BYTES = 2**20
OLD_FILES = 3
MAX_CHARACTERS = 20_000
"""Of one record."""
MAX_HIDDEN = 1000
"""Private texts; a job of 120 s in sections of 0.5 s may have 202."""
LOCK_SECONDS = 0.5
UNLOCKED_SECONDS = 60
"""How long it is written without the lock, where a first try has waited in vain."""
FORMAT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s"
OWN = ("webui", "diffusers_helper")
"""The loggers whose INFO is of use; of others, warnings are."""


@contextlib.contextmanager
def log_to(
    home: Path, options: argparse.Namespace | None = None, secrets: Iterable[str] = ()
) -> Iterator[None]:
    """While inside, what is logged goes to files in `home/logs`, too. Never raises because of the log.

    Args:
        options: of the command line, told at the beginning.
        secrets: texts that must never stand in the file.
    """
    handler = LogFile(home / FOLDER, secrets)
    names = (None, *OWN)
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        _let_pass(logging.getLogger(name), logging.WARNING if name is None else logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        _tell_start(options)
        yield
        logger.info("end")
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class LogFile(logging.Handler):
    """Appends each record to `NAME.log` in the folder; a full one becomes `NAME.1.log`, and so on.

    A record may carry private texts (`extra={"private": [...]}`): they are hidden in it and from then on.
    """

    def __init__(self, folder: Path, secrets: Iterable[str] = ()) -> None:
        super().__init__(logging.INFO)
        self._folder = folder
        self._secrets = tuple(secrets)
        self._hidden: dict[str, None] = {}
        """The texts, each once, the newest last."""
        self._unlocked_until = 0.0
        self._file_lock = FileLock(folder / f"{NAME}.lock", timeout=LOCK_SECONDS)
        self.setFormatter(logging.Formatter(FORMAT, "%Y-%m-%d %H:%M:%S"))
        self.addFilter(_is_wanted)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._text_of(record)
        except (TypeError, ValueError, LookupError, AttributeError):
            self.handleError(record)  # a call of the logger that is wrong itself
            return
        with contextlib.suppress(OSError):  # a full disk, a folder that can't be written
            self._append(f"{text}\n".encode("utf-8", "backslashreplace"))

    def _text_of(self, record: logging.LogRecord) -> str:
        self._hide(getattr(record, "private", ()))
        text = redact(self.format(record), (*self._secrets, *self._hidden))
        if len(text) > MAX_CHARACTERS:  # where it began and where it ended tell the most
            text = f"{text[: MAX_CHARACTERS // 2]}\n[...]\n{text[-MAX_CHARACTERS // 2 :]}"
        return "\n    ".join(text.splitlines())  # no line of a record can pass for another record

    def _hide(self, texts: Iterable[str]) -> None:
        for text in filter(str.strip, texts):
            self._hidden.pop(text, None)
            self._hidden[text] = None
        for old in [*self._hidden][:-MAX_HIDDEN]:
            del self._hidden[old]

    def _append(self, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            path = self._path()
            with contextlib.suppress(OSError):
                self._make_room(path, len(content))
            if _size(path) < 2 * MAX_BYTES:  # where it cannot be renamed, it does not grow for ever
                with path.open("ab", buffering=0) as file:
                    file.write(content)

    def _make_room(self, path: Path, num_bytes: int) -> None:
        if _size(path) + num_bytes <= MAX_BYTES:
            return
        for number in range(OLD_FILES, 0, -1):
            newer = self._path(number - 1)
            if newer.exists():
                newer.replace(self._path(number))

    def _path(self, number: int = 0) -> Path:
        return self._folder / (f"{NAME}.{number}.log" if number else f"{NAME}.log")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process writes; where that can't be known, or takes too long, all the same."""
        has_lock = time.monotonic() >= self._unlocked_until and self._has_locked()
        try:
            yield
        finally:
            if has_lock:
                self._file_lock.release()

    def _has_locked(self) -> bool:
        try:
            self._file_lock.acquire()
        except (OSError, NotImplementedError):
            self._unlocked_until = time.monotonic() + UNLOCKED_SECONDS
            return False
        return True


def _tell_start(options: argparse.Namespace | None) -> None:
    logger.info("start: %s, on %s", versions(), platform.machine())
    told = {} if options is None else {name: value for name, value in vars(options).items() if value}
    if "login" in told:
        told["login"] = "..."
    shown = ", ".join(f"{name}={value}" for name, value in told.items())
    logger.info("options: %s", shown.encode("utf-8", "backslashreplace").decode())  # a shell gives any bytes


def _let_pass(own: logging.Logger, level: int) -> None:
    """Let records of this level pass a logger that let only worse ones pass."""
    if own.getEffectiveLevel() > level:
        own.setLevel(level)


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in OWN


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

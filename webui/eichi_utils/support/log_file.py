"""The log file for support: the records of the app and its engine, one file a run.

A record that cannot be written is lost, nothing else. The file is open for the moment of a record only, so
that it can be moved or deleted while the app runs.
"""

import argparse
import contextlib
import logging
import os
import platform
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from .failures import cut, versions
from .redaction import redact

logger = logging.getLogger(__name__)

FOLDER = "logs"
MAX_FILES = 10
MAX_BYTES = 2**20
"""Bytes of a file; a run that logs more goes on in another one."""
MAX_CHARACTERS = 20_000
"""Characters of a record."""
MAX_HIDDEN = 1000
"""The most private texts to hide; a job of 120 s in sections of 0.5 s may have 202."""
FORMAT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s"
OUR_LOGGERS = ("webui", "diffusers_helper")
"""The loggers whose INFO is of use; other loggers' warnings are."""


@contextlib.contextmanager
def log_to(
    home: Path, options: argparse.Namespace | None = None, secrets: Iterable[str] = ()
) -> Iterator[None]:
    """Write what is logged inside the block to a file in `home/logs`, too. Never raises because of the log.

    Args:
        options: of the command line, logged first.
        secrets: texts that must never stand in the file.
    """
    handler = LogFile(home / FOLDER, secrets)
    ours = {logging.getLogger(name): logging.INFO for name in OUR_LOGGERS}
    loggers = ours | {logging.getLogger(): logging.WARNING}
    before = {logger: logger.level for logger in loggers}
    for each, level in loggers.items():
        if each.getEffectiveLevel() > level:
            each.setLevel(level)
    logging.getLogger().addHandler(handler)
    try:
        _log_start(options)
        yield
        logger.info("end")
    finally:
        logging.getLogger().removeHandler(handler)
        for each, level in before.items():
            each.setLevel(level)


class LogFile(logging.Handler):
    """Appends each record to a file in the folder that is named by its first record's time.

    A record may carry private texts (`extra={"private": [...]}`): they are hidden in it and from then on.
    """

    def __init__(self, folder: Path, secrets: Iterable[str] = ()) -> None:
        super().__init__(logging.INFO)
        self._folder = folder
        self._path: Path | None = None
        self._secrets = tuple(secrets)
        self._hidden: dict[str, None] = {}
        """Each private text once, the newest last."""
        self.setFormatter(logging.Formatter(FORMAT, "%Y-%m-%d %H:%M:%S"))
        ours = OUR_LOGGERS
        self.addFilter(lambda new: new.levelno >= logging.WARNING or new.name.partition(".")[0] in ours)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._text_of(record)
        except (TypeError, ValueError, LookupError, AttributeError):
            self.handleError(record)  # a call of the logger that is wrong itself
            return
        with contextlib.suppress(OSError):  # a full disk, a folder that can't be written
            self._append(f"{text}\n".encode("utf-8", "backslashreplace"))

    def _text_of(self, record: logging.LogRecord) -> str:
        for private in filter(str.strip, getattr(record, "private", ())):
            self._hidden.pop(private, None)
            self._hidden[private] = None
        for old in [*self._hidden][:-MAX_HIDDEN]:
            del self._hidden[old]
        text = cut(redact(self.format(record), (*self._secrets, *self._hidden)), MAX_CHARACTERS)
        return "\n    ".join(text.splitlines())  # no line of a record can pass for another record

    def _append(self, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path
        if path is None or (path.exists() and path.stat().st_size + len(content) > MAX_BYTES):
            path = self._path = self._folder / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}_{os.getpid()}.log"
            _delete_old(self._folder)
        with path.open("ab", buffering=0) as file:
            file.write(content)


def _delete_old(folder: Path) -> None:
    """Delete the files written least recently, so that with one more there are MAX_FILES."""
    with contextlib.suppress(OSError):  # another process may do the same
        newest_first = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in newest_first[MAX_FILES - 1 :]:
            path.unlink()


def _log_start(options: argparse.Namespace | None) -> None:
    logger.info("start: %s, on %s", versions(), platform.machine())
    values = {} if options is None else {name: value for name, value in vars(options).items() if value}
    if "login" in values:
        values["login"] = "..."
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    logger.info("options: %s", shown.encode("utf-8", "backslashreplace").decode())  # a shell gives any bytes

"""Keeps the folder of uploads small while the app runs for days.

Gradio keeps there what pages upload, what comes back with a request, what is continued from, and a second
name of each video that a program asked for. Jobs have copies of their own, so all of it is of use only to
pages that show it. At the end of the app all is deleted (`app`) but what the form held, which the next start
shows again, and where pages are open, which will do so themselves. Gradio's own `delete_cache` has no limit
of bytes, keeps partial uploads and empty folders, and stops for good at a file that Windows does not let it
delete.
"""

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 2_000_000_000
MAX_AGE_SECONDS = 48 * 3600
"""Seconds since a page last used it: a laptop that slept over a weekend day finds its picture."""
EMPTY_FOLDER_SECONDS = 3600
"""Seconds in which a folder that was just made may be about to get its file."""
TIDY_SECONDS = 600


def uploads_folder(home: Path) -> Path:
    """Return the folder of uploads in the app's folder.

    Where that has a name of bytes that are no UTF-8, which no address can have, it lies in the system's own
    folder for such files.
    """
    try:
        str(home).encode("utf-8")
        return home / "temp" / "uploads"
    except UnicodeEncodeError:
        name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        return Path(
            tempfile.gettempdir(), f"endframe-ichi-{os.getuid() if hasattr(os, 'getuid') else 0}-{name}"
        )


class UploadCleaner:
    """Deletes files that are old, and the oldest where there is too much. Safe to use from any thread."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._uploading = 0

    def start(self, end: threading.Event) -> None:
        """Tidy every few minutes until `end`, in a thread of its own."""

        def keep_tidying() -> None:
            while not end.wait(TIDY_SECONDS):
                self.tidy()

        threading.Thread(target=keep_tidying, name="uploads", daemon=True).start()

    @contextlib.contextmanager
    def uploading(self) -> Iterator[None]:
        """Keep partial uploads during the block: a file gets a folder only when it is complete."""
        with self._lock:
            self._uploading += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploading -= 1

    def tidy(self) -> None:
        """Delete partial uploads, files that are too old, and the oldest of those that are too much."""
        with self._lock:
            if not self._uploading:
                _delete(path for path in _entries(self._folder) if path.is_file())
            now, total = time.time(), 0
            for used, size, path in sorted(_files(self._folder), reverse=True):
                total += size
                if total > self._max_bytes or now - used > MAX_AGE_SECONDS:
                    _delete([path])
            for folder in _entries(self._folder):
                with contextlib.suppress(OSError):  # it is not empty, it is no folder, it has gone
                    if now - folder.stat().st_mtime > EMPTY_FOLDER_SECONDS:
                        folder.rmdir()


def delete_upload(path: str) -> None:
    """Delete an upload that was refused, and the folder that it had for itself."""
    with contextlib.suppress(OSError, ValueError):
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()  # fails where something else is in it


def uploads_of(form: str, folder: Path) -> set[Path]:
    """Return the uploads that JSON names, and what lies beside them: views, and notes."""
    try:
        named = tuple(path for path in _texts(json.loads(form)) if Path(path).is_relative_to(folder))
    except (ValueError, RecursionError):
        return set()
    return {path for _, _, path in _files(folder) if str(path).startswith(named)}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def delete_uploads(folder: Path, kept: Collection[Path]) -> None:
    """Delete all uploads but those that are kept."""
    for parent, _, names in os.walk(folder, topdown=False):
        _delete(path for path in (Path(parent, name) for name in names) if path not in kept)
        with contextlib.suppress(OSError):
            Path(parent).rmdir()  # fails where something is left in it


def touch(paths: Iterable[str | Path | None]) -> None:
    """Keep what a page uses now as if it had come now."""
    for path in paths:
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                os.utime(path)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # on Windows somebody may be reading it
            logger.info("an upload stays for now: %s", error)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # there is none yet
        return []


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each file in the folders of uploads was used, its bytes (none for a second name), its path.

    No link is followed.
    """
    folders = (entry for entry in _entries(folder) if not entry.is_symlink())
    for path in (path for entry in folders for path in _entries(entry)):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield status.st_mtime, status.st_size if status.st_nlink == 1 else 0, path

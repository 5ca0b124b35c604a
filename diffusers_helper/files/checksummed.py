"""Files that hold their own checksum, so that damage is noticed: content, metadata as JSON, SHA-256.

The content comes first, so that it can be read like any file once the checksum was verified.
"""

import contextlib
import errno
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .atomic import atomic_write

DIGEST = hashlib.sha256().digest_size
LENGTH = struct.Struct("<Q")
"""The length of the metadata in bytes, between them and the checksum."""
CHUNK = 2**20
"""Bytes read at a time."""
PERMANENT_ERRORS = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO, errno.ELOOP)
"""Error numbers that another try would not change: EIO is a broken part of the disk."""


def write_checksummed(path: Path, content: Iterable[bytes], metadata: Mapping[str, Any]) -> None:
    """Write `content`, then `metadata` (JSON values), then the checksum of both. Raises OSError."""
    with checksummed_file(path, metadata) as write:
        for piece in content:
            write(piece)


@contextlib.contextmanager
def checksummed_file(path: Path, metadata: Mapping[str, Any]) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes the content piece by piece; the rest follows when the block ends well.

    Raises:
        OSError: it cannot be written; no file of this name is left.
    """
    digest = hashlib.sha256()
    encoded = json.dumps(metadata).encode()
    with atomic_write(path) as part, part.open("wb") as file:

        def write(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        yield write
        write(encoded + LENGTH.pack(len(encoded)))
        file.write(digest.digest())


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Read a checksummed file as a whole; returns its metadata, None where it is damaged or not there.

    Raises:
        OSError: it cannot be read now, whatever its content.
    """
    try:
        size = path.stat().st_size - DIGEST
        with path.open("rb") as file:
            if sha256_of(file, size) != file.read(DIGEST):
                return None
            file.seek(size - LENGTH.size)  # what has its checksum we wrote
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            file.seek(size - LENGTH.size - length)
            return json.loads(file.read(length))
    except OSError as error:
        if error.errno not in PERMANENT_ERRORS and not path.is_dir():  # Windows opens no folder: EACCES
            raise
        return None


def sha256_of(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the next `size` bytes of an open file."""
    digest = hashlib.sha256()
    while size > 0 and (piece := file.read(min(size, CHUNK))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()

"""Files that tell by themselves whether they are whole: their content, a few facts about it, a checksum.

The content lies at the front, so that it can be read like any file once the seal was looked at.
"""

import errno
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .atomic import whole_file

DIGEST = hashlib.sha256().digest_size
LENGTH = struct.Struct("<Q")
"""Of the facts, which stand between content and checksum as JSON."""
CHUNK = 2**20
MAX_FACTS = 2**20
LOST = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO)
"""What the system says where no other moment would give more: EIO is a part of the disk that is broken."""


def write_sealed(path: Path, content: Iterable[bytes], facts: Mapping[str, Any]) -> None:
    """Write `content` piece by piece, then `facts` (JSON values), then the checksum of both.

    Raises:
        OSError: it cannot be written; nothing stands under its name then.
    """
    digest = hashlib.sha256()
    told = json.dumps(facts).encode()
    with whole_file(path) as part, part.open("wb") as file:
        for piece in content:
            digest.update(piece)
            file.write(piece)
        tail = told + LENGTH.pack(len(told))
        digest.update(tail)
        file.write(tail + digest.digest())


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a sealed file, after reading all of it; None where it is damaged, or not there.

    Raises:
        OSError: it cannot be read now, which says nothing about what is in it.
    """
    try:
        size = path.stat().st_size - DIGEST
        with path.open("rb") as file:
            digest = digest_of(file, size)
            if size < LENGTH.size or digest != file.read(DIGEST):
                return None
            file.seek(size - LENGTH.size)
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            if length > min(MAX_FACTS, size - LENGTH.size):
                return None
            file.seek(size - LENGTH.size - length)
            facts = json.loads(file.read(length))
    except ValueError:
        return None
    except OSError as error:
        if error.errno not in LOST:
            raise
        return None
    return facts if isinstance(facts, dict) else None


def digest_of(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the next `size` bytes of an open file."""
    digest = hashlib.sha256()
    while size > 0 and (piece := file.read(min(size, CHUNK))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()

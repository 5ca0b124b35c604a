"""The boxes of AVIF, HEIC and JPEG 2000 files that tell their colours, which Pillow does not; MP4's comment.

Boxes are those of ISO/IEC 14496-12, in which 23008-12 (HEIF) and 15444-1 (JPEG 2000) keep theirs, too.
"""

import io
import struct
from collections.abc import Iterator
from typing import IO

from .colours import Tags

MAX_BOX_BYTES = 2**24
_COMMENT = ((b"moov", 0), (b"udta", 0), (b"meta", 4), (b"ilst", 0), (b"\xa9cmt", 0), (b"data", 8))
"""The boxes around an MP4's comment, each with the bytes in front of what it holds."""
_BY_PROFILE, _METHODS = (b"\2", b"\3"), (b"\1", b"\2", b"\3")
"""How JPEG 2000 tells colours: by a number, or by a profile."""


def read_tags(file: IO[bytes]) -> Tags:
    """Read the code points, or JPEG 2000's profile, of the main picture's colours.

    Keeps the file's position. Never raises.
    """
    position = file.tell()
    try:
        if header := _box(file, b"jp2h"):
            return Tags(profile=_profile(header))
        return _tags(_properties(_box(file, b"meta")))
    except (struct.error, IndexError):
        return Tags()
    finally:
        file.seek(position)


def read_comment(file: IO[bytes], most: int) -> str | None:
    """Read the comment of an MP4 file, of at most `most` bytes, in a fraction of the time that FFmpeg takes.

    Returns None where there is none.
    """
    begin, end = 0, file.seek(0, io.SEEK_END)
    for kind, skipped in _COMMENT:
        found = next((place for name, place in _places(file, begin, end) if name == kind), None)
        if found is None:
            return None
        begin, end = found[0] + skipped, found[1]
    if not 0 <= end - begin <= most:
        return None
    file.seek(begin)
    return file.read(end - begin).decode("utf-8", "replace")


def _places(file: IO[bytes], begin: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield the kind of each box between two positions, and where what it holds begins and ends."""
    while begin + 8 <= end:
        file.seek(begin)
        header = file.read(16)
        size, kind = struct.unpack(">I4s", header[:8])
        start = 8
        if size == 1 and len(header) == 16:
            (size,), start = struct.unpack(">Q", header[8:]), 16
        size = size or end - begin
        if size < start or begin + size > end:
            return
        yield kind, (begin + start, begin + size)
        begin += size


def _profile(header: bytes) -> bytes | None:
    """Return the ICC profile in the first box of colours that readers know; None where it holds none."""
    colours = next((data for kind, data in _boxes(header) if kind == b"colr" and data[:1] in _METHODS), b"")
    return colours[3:] if colours[:1] in _BY_PROFILE else None


def _tags(properties: list[tuple[bytes, bytes]]) -> Tags:
    cicp: tuple[int, int] | None = None
    peak: float | None = None
    for kind, data in properties:
        if kind == b"colr" and data[:4] == b"nclx" and cicp is None:
            cicp = struct.unpack(">HH", data[4:8])
        elif kind == b"clli":
            peak = int.from_bytes(data[:2], "big") or peak
        elif kind == b"mdcv" and peak is None:
            peak = int.from_bytes(data[16:20], "big") / 10_000 or None
    return Tags(cicp=cicp, peak=peak)


def _properties(meta: bytes) -> list[tuple[bytes, bytes]]:
    """Return the properties, as kind and data, that belong to the main picture."""
    boxes = dict(_boxes(meta[4:]))
    main = _number(boxes[b"pitm"][4:], wide=boxes[b"pitm"][0] > 0) if b"pitm" in boxes else 0
    properties: list[tuple[bytes, bytes]] = []
    own: list[int] = []
    for kind, data in _boxes(boxes.get(b"iprp", b"")):
        if kind == b"ipco":
            properties = list(_boxes(data))
        elif kind == b"ipma":
            own += _associated(data, main)
    # A place counts from 1.
    return [properties[place - 1] for place in own if 0 < place <= len(properties)]


def _box(file: IO[bytes], wanted: bytes) -> bytes:
    """Read a box that stands in none; empty where there is none of this kind."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return b""
        size, kind = struct.unpack(">I4s", header[:8])
        start = 8
        if size == 1 and len(header) == 16:
            (size,), start = struct.unpack(">Q", header[8:]), 16
        if kind == wanted:
            file.seek(position + start)
            return file.read(min(size - start, MAX_BOX_BYTES) if size else MAX_BOX_BYTES)
        if size < start:
            return b""
        position += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        if size < 8:
            return
        yield kind, data[position + 8 : position + size]
        position += size


def _associated(data: bytes, item: int) -> list[int]:
    """Read from an `ipma` box the places of the properties of an item."""
    version, flags = data[0], int.from_bytes(data[1:4], "big")
    file, places = io.BytesIO(data[8:]), list[int]()
    for _ in range(int.from_bytes(data[4:8], "big")):
        number = file.read(4 if version else 2)
        if not number:
            break
        for _ in range(file.read(1)[0]):
            entry = int.from_bytes(file.read(2 if flags & 1 else 1), "big")
            if int.from_bytes(number, "big") == item:
                places.append(entry & (0x7FFF if flags & 1 else 0x7F))
    return places


def _number(data: bytes, wide: bool) -> int:
    return int.from_bytes(data[: 4 if wide else 2], "big")

"""The chunks of PNG files: what the pixels need is kept for Pillow, of the rest what tells colours and text.

Everything else is skipped, whatever its size and whatever is wrong in it, as browsers do.
"""

import contextlib
import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

from .colours import Tags

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TAG_BYTES = 2**24
"""Bytes at most of a colour profile or of EXIF data, also when decompressed."""
_LOST = bytes(64)
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_PIECE = 256
"""Bytes that are decompressed together: of those with damage among them, nothing comes."""
_SEQUENCE = 4
"""Bytes of the number in front of a frame's data."""
_LONGEST_HEAD = 26
"""Bytes of a frame's header, which is longer than a picture's."""
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TAGS = frozenset({b"IHDR", b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"cLLI", b"mDCV", b"eXIf"})
_SCALE, _NITS = 100_000, 10_000
"""The factors of PNG's fixed point numbers: of gamma and primaries, and of nits."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A chunk and where its data begins in the file."""

    kind: bytes
    length: int
    data: int


class DamagedPngError(ValueError):
    """A chunk without which there are no pixels is damaged."""


def pixels_only(file: IO[bytes]) -> tuple[io.BytesIO, Tags]:
    """Read a PNG file as one that holds nothing but pixels, and what its other chunks tell of colours.

    Raises:
        DamagedPngError: one of the chunks that hold pixels is damaged.
    """
    pixels, tags, seen = io.BytesIO(), Tags(), set[bytes]()
    pixels.write(SIGNATURE)
    frame = _hidden_frame(file)
    for chunk in _walk(file):
        if chunk.kind == b"fdAT" and chunk.data in frame:
            file.seek(chunk.data + _SEQUENCE)
            pixels.write(_packed(b"IDAT", file.read(chunk.length - _SEQUENCE)))
        elif chunk.kind in _PIXELS and not (frame and chunk.kind == b"IDAT"):
            _keep(file, chunk, pixels)
        if chunk.kind in _TAGS and chunk.kind not in seen and _may_stand_here(chunk.kind, seen):
            data = _checked(file, chunk)
            if data is not None:
                tags = _with_chunk(tags, chunk.kind, data)
        seen.add(chunk.kind)
    if b"IEND" in seen:
        pixels.write(_END)
    pixels.seek(0)
    return pixels, tags


def _hidden_frame(file: IO[bytes]) -> range:
    """Return where the data of an animation's first frame lie if its default picture is no frame.

    They are IDAT's but for a number in front. Empty where the default picture is the first frame, where there
    is no animation, or where its first frame is smaller than the picture.
    """
    heads, first, last = dict.fromkeys((b"IHDR", b"acTL", b"fcTL"), b""), 0, -1
    for chunk in _walk(file):
        if chunk.kind in heads:
            if heads[chunk.kind]:  # the second frame's
                break
            file.seek(chunk.data)
            heads[chunk.kind] = file.read(min(chunk.length, _LONGEST_HEAD))
        elif chunk.kind == b"IDAT" and not any(heads[b"acTL"][:4]):
            break
        elif chunk.kind == b"fdAT" and heads[b"fcTL"][4:20] == heads[b"IHDR"][:8] + bytes(8):
            first, last = first or chunk.data, chunk.data
    return range(first, last + 1)


def has_end(pixels: IO[bytes]) -> bool:
    """Return whether a PNG file of pixels only ends as it should."""
    pixels.seek(-len(_END), io.SEEK_END)
    return pixels.read() == _END


def read_text(file: IO[bytes], keyword: str, most: int) -> str | None:
    """Read the text with a keyword from a PNG file's tEXt, zTXt and iTXt chunks, of up to `most` bytes."""
    key = keyword.encode("latin-1") + b"\0"
    for chunk in _walk(file):
        if chunk.kind in _TEXTS and len(key) < chunk.length <= most + len(key) + 1024:
            file.seek(chunk.data)
            if file.read(len(key)) == key:
                text = _text(chunk.kind, file.read(chunk.length - len(key)), most)
                if text is not None:
                    return text
    return None


def completed(pixels: IO[bytes]) -> tuple[float, io.BytesIO]:
    """Fill up a PNG file of pixels only, from where it is cut or damaged, with zeros: black, or transparent.

    Returns the part that is missing, from 0 to 1, and the whole file.
    """
    raw, whole, wanted = bytearray(), io.BytesIO(), 0
    inflate: Any = zlib.decompressobj()
    whole.write(SIGNATURE)
    for chunk in _walk(pixels):
        pixels.seek(chunk.data)
        data = pixels.read(chunk.length)
        if chunk.kind == b"IHDR":
            wanted = _raw_bytes(data)
        if chunk.kind != b"IDAT":
            whole.write(_packed(chunk.kind, data) if chunk.kind != b"IEND" else b"")
            continue
        lost = data.endswith(_LOST)  # what a download reserved and did not fill
        data = data.rstrip(b"\0") if lost else data
        with contextlib.suppress(zlib.error):
            for start in range(0, len(data), _PIECE):
                raw += inflate.decompress(data[start : start + _PIECE], wanted - len(raw) + 1)
            if not lost:
                continue
        break
    del raw[wanted:]
    missing = 1 - len(raw) / wanted if wanted else 0.0
    raw += bytes(wanted - len(raw))
    whole.write(_packed(b"IDAT", zlib.compress(raw, 1)) + _END)
    whole.seek(0)
    return missing, whole


def _walk(file: IO[bytes]) -> Iterator[Chunk]:
    """Follow the chunks up to the end of the picture, or of the file."""
    position = len(SIGNATURE)
    while True:
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        length, kind = struct.unpack(">I4s", header)
        if not kind.isalpha():
            return
        yield Chunk(kind, length, position + 8)
        if kind == b"IEND":
            return
        position += 12 + length


def _keep(file: IO[bytes], chunk: Chunk, pixels: io.BytesIO) -> None:
    if chunk.kind == b"IDAT":  # its checksum is nobody's business: zlib has one of its own
        file.seek(chunk.data)
        pixels.write(_packed(b"IDAT", file.read(chunk.length)))
        return
    data = _checked(file, chunk)
    if data is not None and (chunk.kind != b"PLTE" or (data and len(data) % 3 == 0)):
        pixels.write(_packed(chunk.kind, _scaled(data, pixels) if chunk.kind == b"tRNS" else data))
    elif chunk.kind == b"IHDR" or (chunk.kind == b"PLTE" and _is_palette(pixels)):
        raise DamagedPngError(f"the chunk {chunk.kind.decode('ascii')}")


def _scaled(transparent: bytes, pixels: io.BytesIO) -> bytes:
    """Scale the grey that is transparent to 8 bits as Pillow scales the pixels, of 2 and 4 bits, too."""
    bits, kind = pixels.getbuffer()[24:26]
    if kind == 0 and bits in (2, 4) and len(transparent) == 2:
        return bytes([0, transparent[1] % 2**bits * (255 // (2**bits - 1))])
    return transparent


def _is_palette(pixels: io.BytesIO) -> bool:
    return bytes(pixels.getbuffer()[25:26]) == b"\3"


def _checked(file: IO[bytes], chunk: Chunk) -> bytes | None:
    """Read a chunk's data; None where it is too long or its checksum is wrong."""
    if chunk.length > MAX_TAG_BYTES:
        return None
    file.seek(chunk.data)
    data, checksum = file.read(chunk.length), file.read(4)
    is_right = len(checksum) == 4 and zlib.crc32(chunk.kind + data) == int.from_bytes(checksum, "big")
    return data if is_right else None


def _packed(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _may_stand_here(kind: bytes, seen: set[bytes]) -> bool:
    """Colours stand in front of the pixels they are for; only the orientation may come later."""
    return kind == b"eXIf" or b"IDAT" not in seen


def _inflated(data: bytes, most: int) -> bytes | None:
    """Decompress what is whole and has up to `most` bytes."""
    inflate = zlib.decompressobj()
    try:
        result = inflate.decompress(data, most + 1)
    except zlib.error:
        return None
    return result if inflate.eof and len(result) <= most else None


def _text(kind: bytes, data: bytes, most: int) -> str | None:
    if kind == b"tEXt":
        return data.decode("latin-1")
    packed, coding = kind == b"zTXt", "latin-1"
    if kind == b"zTXt":
        data = data[1:]
    else:
        packed, coding = data[:1] == b"\1", "utf-8"
        *_, data = data[2:].split(b"\0", 2)
    content = _inflated(data, most) if packed else data
    return None if content is None else content.decode(coding, "replace")


def _raw_bytes(header: bytes) -> int:
    """Return the bytes of a picture's rows, each with its filter in front, that a header promises."""
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    depth = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 0)
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    total = 0
    for left, top, across, down in steps if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + -(-columns * depth // 8)) if columns > 0 and rows > 0 else 0
    return total


def _with_chunk(tags: Tags, kind: bytes, data: bytes) -> Tags:
    """Return the tags with what a chunk tells (PNG, third edition, 11.3.2 and 11.3.7), unless it is odd."""
    match kind, len(data):
        case b"IHDR", 13:
            return dataclasses.replace(tags, is_grey=data[9] in (0, 4))
        case b"iCCP", _:
            name, _, rest = data.partition(b"\0")
            is_right = 1 <= len(name) <= 79 and rest[:1] == b"\0"
            return dataclasses.replace(tags, profile=_inflated(rest[1:], MAX_TAG_BYTES) if is_right else None)
        case b"cICP", 4 if data[2:] == b"\0\1":  # a PNG file holds RGB of the full range only
            return dataclasses.replace(tags, cicp=(data[0], data[1]))
        case b"sRGB", 1 if data[0] <= 3:
            return dataclasses.replace(tags, is_srgb=True)
        case b"gAMA", 4 if any(data):
            return dataclasses.replace(tags, gamma=_SCALE / int.from_bytes(data, "big"))
        case b"cHRM", 32:
            points = tuple(value / _SCALE for value in struct.unpack(">8I", data))
            return dataclasses.replace(tags, primaries=points)
        case b"cLLI", 8:
            return dataclasses.replace(tags, peak=int.from_bytes(data[:4], "big") / _NITS)
        case b"mDCV", 24 if not tags.peak:
            return dataclasses.replace(tags, peak=int.from_bytes(data[16:20], "big") / _NITS)
        case b"eXIf", _:
            return dataclasses.replace(tags, exif=data)
    return tags

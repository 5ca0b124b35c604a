"""Pictures as our files hold them: whole, without metadata, bounded, and exact at the size of their video.

A small picture is kept without loss. A large one is shrunk and kept as WebP with loss, and behind it, in a
chunk of its own that other programs skip, the part that the video was made from without loss. So a video is
made again from the same pixels, and a larger one from more of them.
"""

import base64
import io
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image

from .images import fit_image, read_image
from .picture_file import MIN_SIDE, open_source

MAX_SIDE = 2048
"""Pixels of the longer side of a picture that is kept."""
LOSSLESS_PIXELS = 2**20
"""Pixels of the largest picture that is kept without loss although it is larger than the video."""
QUALITY = 90
LIKENESS = 8.0
"""Levels of 255 by which a part may differ, in the mean, from what the whole picture shows there."""
PART = b"PART"
"""The name of the chunk with the part that a video was made from."""
MAX_CHUNK_BYTES = 2**26


def pack_picture(name: str, fitted: np.ndarray, position: float = 0.5) -> str:
    """Return a `data:` URI of a picture (a path or such a URI) from which `read_fitted` reads `fitted` again.

    `fitted`, `(height, width, 3)` uint8, is what `read_fitted` has read from the picture at this position.
    """
    content = _kept_before(name)
    if content is None:
        content = _encode(read_image(name), fitted.size)
    uri, (height, width) = _to_uri(content), fitted.shape[:2]
    if np.array_equal(read_fitted(uri, height, width, position), fitted):
        return uri
    part = struct.pack("<d", position) + _webp(fitted, lossless=True)
    return _to_uri(content + _chunk(PART, part))


def read_fitted(name: str, height: int, width: int, position: float = 0.5) -> np.ndarray:
    """Read a picture `(height, width, 3)` uint8 in the size of a video: the part of this size that it holds.

    Where it holds none of this position, it is scaled and cropped, see `fit_image`; also where the part shows
    something else.

    Raises:
        InputError: see `read_image`.
    """
    fitted = fit_image(read_image(name), height, width, position)
    part = _read_part(name, position)
    if part is None or part.shape != fitted.shape:
        return fitted
    difference = np.abs(part.astype(np.int16) - fitted).mean()
    return part if difference <= LIKENESS else fitted


def _encode(picture: np.ndarray, fitted_size: int) -> bytes:
    """Encode a picture: without loss if it is small, or no larger than its video; else shrunk, with loss."""
    if picture.size <= max(3 * LOSSLESS_PIXELS, fitted_size) and max(picture.shape) <= MAX_SIDE:
        return _webp(picture, lossless=True)
    return _webp(_bounded(picture) if max(picture.shape) > MAX_SIDE else picture, lossless=False)


def _bounded(picture: np.ndarray) -> np.ndarray:
    """Shrink a large picture, but none to less than can be read again."""
    height, width = picture.shape[:2]
    scale = max(MAX_SIDE / max(height, width), MIN_SIDE / min(height, width))
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _webp(picture: np.ndarray, *, lossless: bool) -> bytes:
    """Encode a picture; returns the chunk that holds its pixels."""
    file = io.BytesIO()
    options = {"lossless": True} if lossless else {"quality": QUALITY}
    Image.fromarray(picture).save(file, "WEBP", method=2, **options)
    return file.getvalue()[12:]


def _to_uri(chunks: bytes) -> str:
    content = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


# -- the files that we have written ------------------------------------------------------------------


def _kept_before(name: str) -> bytes | None:
    """Return the pixels' chunk of a picture that was kept with loss: a second time, it would lose more."""
    chunks = dict(_chunks(name))
    pixels = chunks.get(b"VP8 ")
    if pixels is None or not chunks.keys() <= {b"VP8 ", PART}:  # else there is metadata in it
        return None
    width, height = (side & 0x3FFF for side in struct.unpack("<HH", pixels[6:10].ljust(4, b"\0")))
    return _chunk(b"VP8 ", pixels) if max(width, height) <= MAX_SIDE else None


def _read_part(name: str, position: float) -> np.ndarray | None:
    """Read the part of a picture at a position, if it holds one."""
    part = dict(_chunks(name)).get(PART, b"")
    return read_image(_to_uri(part[8:])) if part[:8] == struct.pack("<d", position) else None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _chunks(name: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a WebP file, none of another file."""
    source, _ = open_source(name)
    with source:
        head = source.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WEBP":
            yield from _read_chunks(source)


def _read_chunks(source: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    while len(header := source.read(8)) == 8:
        kind, length = struct.unpack("<4sI", header)
        if length > MAX_CHUNK_BYTES:
            return
        yield kind, source.read(length + length % 2)[:length]

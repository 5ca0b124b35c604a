"""Pictures that many tests start from."""

import struct
import zlib

import numpy as np

PICTURE = np.full((64, 96, 3), (200, 30, 60), np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    """A picture whose pixels are random, the same at every call."""
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(width: int, height: int, *chunks: bytes, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG file that claims a size, with these chunks; kind 2 is RGB, kind 6 has alpha, too."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, png_chunk(b"IEND", b"")])

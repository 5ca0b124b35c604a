"""Tags of colours: chunks of PNG files, and small ICC profiles."""

import struct
import zlib

from PIL import ImageCms

from tests.support.pictures import png_chunk

D50 = (0.9642, 1, 0.8249)
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""The red, green and blue of profiles, in XYZ for D50."""
SRGB_CHRM = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
ADOBE_CHRM = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
WIDE_CHRM = (34567, 35850, 73469, 26531, 15960, 84040, 3660, 10)


def gama(value: int) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", value))


def chrm(*points: int) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *points))


def cicp(primaries: int, transfer: int, matrix: int = 0, is_full: int = 1) -> bytes:
    return png_chunk(b"cICP", bytes([primaries, transfer, matrix, is_full]))


def clli(nits: int) -> bytes:
    return png_chunk(b"cLLI", struct.pack(">II", nits * 10_000, 0))


def iccp(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))


def icc(
    name: str,
    gamma: float,
    primaries: tuple[tuple[float, ...], ...] | None = None,
    cicp: tuple[int, int] | None = None,
) -> bytes:
    """A profile of that name with one gamma; of grey without primaries."""
    whole = struct.pack(">IHH", 1, round(gamma * 256), 0)
    curve = b"curv\0\0\0\0" + (struct.pack(">I", 0) if gamma == 1 else whole)
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, primaries), strict=True))
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    if cicp is not None:
        tags[b"cicp"] = b"cicp\0\0\0\0" + bytes([*cicp, 0, 1])
    place, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += key + struct.pack(">II", place + len(data), len(padded))
        data += padded
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(">I4s4s4s4s4s", place + len(data), b"test", b"\2\x40\0\0", b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(map(_s15, D50)) + bytes(48)
    return head + table + data


def _s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_s15, values))


LCMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LINEAR_PROFILE = icc("sRGB, but linear", 1, SRGB)


def with_profile(jp2: bytes, profile: bytes, method: int = 2) -> bytes:
    """A JPEG 2000 file whose colours are told by a profile, which Pillow does not write."""
    header, colours = jp2.index(b"jp2h") - 4, jp2.index(b"colr") - 4
    old = int.from_bytes(jp2[colours : colours + 4], "big")
    box = struct.pack(">I4sBBB", 11 + len(profile), b"colr", method, 0, 0) + profile
    length = int.from_bytes(jp2[header : header + 4], "big") - old + len(box)
    longer = jp2[:header] + struct.pack(">I", length) + jp2[header + 4 : colours]
    return longer + box + jp2[colours + old :]

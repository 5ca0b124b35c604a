"""The markers of JPEG files: how much of the picture is missing where one ends too early, and rare kinds.

Knows Pillow as a decoder, no request and no person.
"""

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageChops

END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""The next marker that ends a scan: neither a stuffed byte nor a restart."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_LOSSLESS = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
"""Frames that libjpeg does not read: lossless and hierarchical ones."""
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_CHROMA_WEIGHT = 0.3
"""The bytes of a block of chroma, about, as a share of those of one of luma."""
_BIT_SIZES = np.repeat([[3, 9, 0], [15 / 5, 9 / 5, 6 / 5], [30 / 58, 19 / 58, 12 / 58]], [1, 5, 58], axis=0)
"""The bytes of each of the 64 coefficients in a progressive file, about: of its lowest bit, the one above it,
and all further ones. Measured on photographs and screenshots of qualities 60 to 95, where it errs by up to 25
per cent of the file, mostly by 10; plain pictures take far less for the lower bits (up to 40). The bytes of
the passes that came were tried as a measure for the others, which is no better."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One of a frame's colours, with its sampling factors."""

    key: int
    across: int
    down: int


@dataclasses.dataclass(frozen=True)
class Scan:
    """One pass over the picture: the components, coefficients and bits in it, and where its data begins."""

    components: tuple[int, ...]
    first: int
    last: int
    high: int
    low: int
    data: int
    restart: int


@dataclasses.dataclass
class Structure:
    """The markers of a JPEG file up to its end, or to where it is cut."""

    frame: int = 0
    bits: int = 8
    size: tuple[int, int] = (0, 0)
    components: tuple[Component, ...] = ()
    scans: list[Scan] = dataclasses.field(default_factory=list)
    end: int = 0
    """The bytes that can be used: of a marker that is cut, nothing."""
    is_whole: bool = False

    def blocks(self, component: Component) -> int:
        return component.across * component.down

    def unit(self, scan: Scan) -> tuple[int, int]:
        """Return the pixels, down and across, of the scan's MCUs."""
        most_across = max(c.across for c in self.components)
        most_down = max(c.down for c in self.components)
        if len(scan.components) > 1:
            return 8 * most_down, 8 * most_across
        own = next(c for c in self.components if c.key == scan.components[0])
        return 8 * most_down // own.down, 8 * most_across // own.across


def parse(data: bytes) -> Structure:
    """Follow the markers of a JPEG file. What is odd in them ends the walk, as a cut does."""
    found, restart, position = Structure(), 0, 2
    while (marker := _MARKER.search(data, position)) is not None:
        start, kind = marker.start(), data[marker.end() - 1]
        found.end = start
        if kind == 0xD9:
            found.is_whole = True
            return found
        body = marker.end()
        (length,) = struct.unpack(">H", data[body : body + 2]) if len(data) >= body + 2 else (0,)
        segment, position = data[body + 2 : body + length], body + length
        if length < 2 or position > len(data):
            return found
        try:
            if kind in _FRAMES:
                _read_frame(found, kind, segment)
            elif kind == 0xDD:
                (restart,) = struct.unpack(">H", segment[:2])
            elif kind == 0xDA:
                found.scans.append(_read_scan(segment, position, restart))
        except (struct.error, IndexError):
            return found
    # A lone 0xFF at the end would make a marker with what is put behind it.
    found.end = len(data.rstrip(b"\xff")) if found.scans and position == found.scans[-1].data else found.end
    return found


def rare_kind(data: bytes) -> str | None:
    """Name the kind of a JPEG file that hardly any program reads; None for a usual one."""
    found = parse(data)
    if found.frame in _LOSSLESS:
        return "lossless JPEG"
    return f"JPEG, {found.bits} bits" if found.frame and found.bits != 8 else None


def missing_part(data: bytes, decode: Callable[[bytes], Image.Image]) -> tuple[float, bytes] | None:
    """Tell which part of a JPEG file's picture is missing, from 0 to 1, with the file as it can be decoded.

    None for a file that has its end.
    Where its data ends is seen in the picture: with something else behind the end, all that follows changes.
    In a progressive file, where each pass makes the whole picture finer, the part is an estimate of how many
    of the file's bytes are missing.

    Args:
        decode: gives the picture of such a file.
    """
    found = parse(_without_lost_tail(data))
    if found.is_whole:
        return None
    if not found.scans or not found.components:
        return 1.0, data
    mended = data[: found.end] + END
    scan = found.scans[-1]
    reached = _reached(found, scan, data, decode)
    if found.frame in _PROGRESSIVE:
        return _missing_bits(found, reached), mended
    seen = {key for done in found.scans[:-1] for key in done.components}
    own = set(scan.components) - seen
    parts = {c.key: _share(found, c) for c in found.components}
    there = sum(parts[key] for key in seen) + reached * sum(parts[key] for key in own)
    return _rounded(1 - there / sum(parts.values())), mended


def _without_lost_tail(data: bytes) -> bytes:
    """Leave out zeros at the end, which stand where a download reserved the room and did not fill it."""
    rest = data.rstrip(b"\0")
    return rest if len(data) - len(rest) > 64 else data


def _read_frame(found: Structure, kind: int, segment: bytes) -> None:
    found.frame = kind
    found.bits, height, width, number = struct.unpack(">BHHB", segment[:6])
    found.size = (height, width)
    triples = [segment[6 + 3 * i : 9 + 3 * i] for i in range(number)]
    found.components = tuple(Component(t[0], (t[1] >> 4) or 1, (t[1] & 15) or 1) for t in triples)


def _read_scan(segment: bytes, data: int, restart: int) -> Scan:
    number = segment[0]
    first, last, bits = segment[1 + 2 * number : 4 + 2 * number]
    keys = tuple(segment[1 + 2 * i] for i in range(number))
    return Scan(keys, first, last, bits >> 4, bits & 15, data, restart)


def _reached(found: Structure, scan: Scan, data: bytes, decode: Callable[[bytes], Image.Image]) -> float:
    """Find the part of a scan that is there, from 0 to 1: what no other end of the file changes."""
    whole, missing = decode(data[: found.end] + END), 0
    height, width = whole.height, whole.width
    down, across = (pixels * height / found.size[0] for pixels in found.unit(scan))
    for tail in _tails(found, scan, data):
        other = decode(data[: found.end] + tail + END)
        box = ImageChops.difference(whole, other).getbbox(alpha_only=False)
        if box is None:
            continue
        # One pixel further: where chroma is scaled up, each block changes its neighbours' last.
        top = round((box[1] + 1) // down * down)
        strip = (0, top, width, min(round(top + down), height))
        box = ImageChops.difference(whole.crop(strip), other.crop(strip)).getbbox(alpha_only=False)
        left = round((box[0] + 1) // across * across) if box else 0
        missing = max(missing, (height - strip[3]) * width + (strip[3] - top) * (width - left))
    return 1 - missing / (height * width)


def _tails(found: Structure, scan: Scan, data: bytes) -> Iterator[bytes]:
    """Make data that may stand behind the end: also with the restarts, which libjpeg waits for."""
    count = len(_RESTART.findall(data, scan.data, found.end)) if scan.restart else 0
    down, across = found.unit(scan)
    units = -(-found.size[0] // down) * -(-found.size[1] // across)
    intervals = -(-units // scan.restart) if scan.restart else 1
    noise = np.random.default_rng(0).integers(0, 255, 4096, np.uint8).tobytes()
    for piece in (noise, bytes(64)):
        restarts = (b"\xff" + bytes([0xD0 + place % 8]) + piece for place in range(count, intervals - 1))
        yield piece + b"".join(restarts)


def _share(found: Structure, component: Component) -> float:
    weight = 1.0 if component.key == found.components[0].key else _CHROMA_WEIGHT
    return weight * found.blocks(component)


def _missing_bits(found: Structure, reached: float) -> float:
    """Estimate the missing part of a progressive file by the coefficients and bits that came."""
    there = everything = 0.0
    for component in found.components:
        came = np.zeros_like(_BIT_SIZES)
        for scan in found.scans:
            if component.key in scan.components:
                bits = came[scan.first : scan.last + 1, scan.low :]
                np.maximum(bits, reached if scan is found.scans[-1] else 1.0, out=bits)
        share = _share(found, component)
        there += share * float(np.sum(came * _BIT_SIZES))
        everything += share * float(_BIT_SIZES.sum())
    return _rounded(1 - there / everything)


def _rounded(missing: float) -> float:
    """Return 0 for what is only not 0 because floats are not exact."""
    return 0.0 if missing < 1e-9 else missing

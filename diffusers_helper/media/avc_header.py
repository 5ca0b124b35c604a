"""The header of H.264 in MP4 files (`avcC` of ISO/IEC 14496-15): the parameter sets that decoders begin with.

Knows no file.
"""

import re
from dataclasses import dataclass

FIXED = 5
"""Bytes in front of the sets: version, profile, compatibility, level, and the size of lengths."""
RESERVED = 0b1110_0000
"""The bits around the number of sequence parameter sets."""
SEQUENCE, PICTURE = 7, 8
"""The kinds of parameter sets by their first byte."""
MAX_SETS = 31
_FIELDS = {SEQUENCE: 4, PICTURE: 1}
"""Bytes in front of a set's id."""
_START_CODE = re.compile(b"\0\0\0?\1")


@dataclass(frozen=True)
class AvcHeader:
    """The parts of a header. `fixed` and `rest` say, for all frames, how these are stored."""

    fixed: bytes
    sequence_sets: tuple[bytes, ...]
    picture_sets: tuple[bytes, ...]
    rest: bytes

    @classmethod
    def parse(cls, content: bytes) -> "AvcHeader":
        """Parse a header. Raises ValueError where it is none."""
        if len(content) <= FIXED or content[0] != 1:
            raise ValueError("no header of H.264 in MP4")
        sequence_sets, place = _read_sets(content, FIXED + 1, content[FIXED] & ~RESERVED)
        picture_sets, place = _read_sets(content, place + 1, _byte(content, place))
        return cls(content[:FIXED], sequence_sets, picture_sets, content[place:])

    def to_bytes(self) -> bytes:
        first, second = (
            b"".join(map(_with_length, sets)) for sets in (self.sequence_sets, self.picture_sets)
        )
        counts = bytes([RESERVED | len(self.sequence_sets)]), bytes([len(self.picture_sets)])
        return self.fixed + counts[0] + first + counts[1] + second + self.rest

    @property
    def sets(self) -> frozenset[bytes]:
        return frozenset((*self.sequence_sets, *self.picture_sets))

    @property
    def ids(self) -> frozenset[int]:
        """The ids that one of the sets has."""
        return frozenset(map(_id_of, self.sets))

    def joined(self, other: "AvcHeader") -> "AvcHeader":
        """Return a header for frames of both.

        Raises:
            ValueError: there is none: frames are stored in different ways, or two sets have the same id.
        """
        sequence_sets = tuple(dict.fromkeys((*self.sequence_sets, *other.sequence_sets)))
        picture_sets = tuple(dict.fromkeys((*self.picture_sets, *other.picture_sets)))
        is_unique = all(len({*map(_id_of, sets)}) == len(sets) for sets in (sequence_sets, picture_sets))
        if (self.fixed, self.rest) != (other.fixed, other.rest) or not is_unique:
            raise ValueError("the parameter sets do not go together")
        if len(sequence_sets) > MAX_SETS:
            raise ValueError("too many parameter sets")
        return AvcHeader(self.fixed, sequence_sets, picture_sets, self.rest)


def split_stream(content: bytes) -> frozenset[bytes]:
    """Return the parameter sets in an encoder's header, where a start code stands before each (Annex B)."""
    units = _START_CODE.split(content)
    return frozenset(unit for unit in units if unit and _kind(unit) in _FIELDS)


def _kind(unit: bytes) -> int:
    return unit[0] & 31


def _id_of(parameters: bytes) -> int:
    """Read the id of a parameter set, an exponential Golomb code: n zeros, then n + 1 bits that end it."""
    start = _FIELDS[SEQUENCE if _kind(parameters) == SEQUENCE else PICTURE]
    bits = f"{int.from_bytes(parameters[start : start + 4].ljust(4, bytes(1)), 'big'):032b}"
    zeros = bits.find("1")
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1


def _read_sets(content: bytes, place: int, count: int) -> tuple[tuple[bytes, ...], int]:
    """Read sets with their lengths in front; returns them, and the place behind."""
    sets = []
    for _ in range(count):
        size = int.from_bytes(content[place : place + 2], "big")
        end = place + 2 + size
        if not size or end > len(content):
            raise ValueError("the header of H.264 is cut short")
        sets.append(content[place + 2 : end])
        place = end
    return tuple(sets), place


def _byte(content: bytes, place: int) -> int:
    if place >= len(content):
        raise ValueError("the header of H.264 is cut short")
    return content[place]


def _with_length(parameters: bytes) -> bytes:
    return len(parameters).to_bytes(2, "big") + parameters

"""The seam of a loop: the end of a video dissolves into its beginning. Knows frames, and no file.

A loop's end picture is its start picture (`request.end_picture`), so where the model obeys, the end is the
beginning already and the dissolve changes next to nothing. It stands here for where the model comes only
near: the last step of the dissolve is as small as the others, so that nothing jumps when the video is
played round. It makes no frame more and none less, and leaves the first one as it is.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

LOOP_FADE_FRAMES = 12
"""Frames that dissolve: long enough to be smooth, too short (0.4 s) to be seen as a double image."""


class Frames(Protocol):
    """Reads frames `start` to `stop` of a video, `(height, width, 3)` uint8, one after the other."""

    def __call__(self, start: int, stop: int) -> Iterator[np.ndarray]: ...


def fade_length(count: int) -> int:
    """How many frames at the end of a video of `count` frames dissolve: never more than a third of it."""
    return min(LOOP_FADE_FRAMES, count // 3)


def looped(frames: Frames, count: int) -> Frames:
    """The same video of `count` frames with its end dissolved into its first frame.

    Of the k frames that dissolve, the i-th (from 1) holds i/(k+1) of the first frame. In memory is one
    frame besides the one that is read.
    """
    length = fade_length(count)
    begin = count - length

    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        yield from frames(start, min(stop, begin))
        if stop <= begin:
            return
        first = next(frames(0, 1)).astype(np.float32)
        start = max(start, begin)
        for number, frame in enumerate(frames(start, stop), start - begin + 1):
            weight = np.float32(number / (length + 1))
            yield np.rint(frame + weight * (first - frame)).astype(np.uint8)

    return read

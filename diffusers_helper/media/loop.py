"""The seam of a loop: the end of a video fades into its first frame. Knows frames, and no file.

A loop's end picture is its start picture (`request.end_picture`), so the model ends near it and the fade
changes little. Its steps are equal, the last one included, so that nothing jumps when the video is repeated.
The number of frames and the first frame stay as they are.
"""

from collections.abc import Callable, Iterator

import numpy as np

LOOP_FADE_FRAMES = 12
"""Frames that fade: enough to be smooth, too few (0.4 s) to be seen as a double image."""
Frames = Callable[[int, int], Iterator[np.ndarray]]
"""The function that yields frames `start` to `stop` of a video, `(height, width, 3)` uint8."""


def looped(frames: Frames, count: int) -> Frames:
    """Fade the end of a video of `count` frames into its first frame, with one frame more in memory.

    At most a third of the frames fade. The i-th of these k (from 1) becomes the mean of itself and the first
    one, which has the weight i / (k + 1).
    """
    length = min(LOOP_FADE_FRAMES, count // 3)
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

"""Writing MP4 files that play everywhere: H.264, yuv420p, BT.709, the index in front."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from .sections import FPS

BT709 = 1


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Encode frames `(height, width, 3)` uint8, one in memory at a time; sides must be even.

    The file appears under its name when it is complete, or not at all.

    Returns:
        The number of frames written.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    part = path.with_name(path.name + ".part")
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["comment"] = comment
            count = 0
            stream = None
            for count, frame in enumerate(frames, 1):
                if stream is None:
                    stream = _add_stream(container, frame, crf)
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                picture = picture.reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
                container.mux(stream.encode(picture))
            if stream is not None:
                container.mux(stream.encode(None))
        os.replace(part, path)
        return count
    finally:
        part.unlink(missing_ok=True)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video file as `(height, width, 3)` uint8, one after the other."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _add_stream(
    container: av.container.OutputContainer, frame: np.ndarray, crf: int
) -> av.video.stream.VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": str(crf), "preset": "medium"})
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream

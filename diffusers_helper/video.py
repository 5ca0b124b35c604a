"""Writing MP4 files that play everywhere: H.264, yuv420p, BT.709, the index in front."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from .sections import FPS
from .whole_file import whole_file

BT709 = 1
FASTSTART = {"movflags": "+faststart"}


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Encode frames `(height, width, 3)` uint8, one in memory at a time; sides must be even.

    The file appears under its name when it is complete, or not at all.

    Returns:
        The number of frames written.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    count = 0
    with (
        whole_file(path) as part,
        av.open(str(part.absolute()), "w", format="mp4", options=FASTSTART) as container,
    ):
        container.metadata["comment"] = comment
        stream = None
        for frame in frames:
            if stream is None:
                stream = _add_stream(container, frame, crf)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(picture))
            count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    return count


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video file as `(height, width, 3)` uint8, one after the other."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _add_stream(
    container: av.container.OutputContainer, frame: np.ndarray, crf: int
) -> av.video.stream.VideoStream:
    options = {"crf": str(crf), "preset": "medium"}
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream

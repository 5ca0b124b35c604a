"""MP4 files that play everywhere (H.264, yuv420p, BT.709, the index in front), and reading frames back."""

import collections
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ..errors import InputError
from ..files.atomic import atomic_write
from ..sections import FPS

BT709 = 1
"""The code of BT.709 in H.264."""
FASTSTART = {"movflags": "+faststart"}
KEY_FRAME_EVERY = 60 * FPS
"""Frames from one key frame to the next. Each shows the same scene with other errors, so that a still one
would twitch; a player that seeks decodes this many at most, which takes a second or two."""
REPEATABLE = "cpu-independent=1:threads=4"
"""The options with which libx264 gives the same bytes each time: otherwise it differs by the number of cores,
and with AVX-512 from run to run (12 of 12 encodings; measured in `benchmarks/README.md`)."""
ENDS_WITHIN = Fraction(1, 4)
"""Seconds by which a complete file's last frame may end before the file's stated end."""


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Encode frames `(height, width, 3)` uint8 with even sides, atomically; return their number.

    One frame is in memory at a time. `crf` is the constant rate factor of libx264, 0 (lossless) to 51. Frames
    give the same file each time, on any number of cores.
    """
    with (
        atomic_write(path) as part,
        av.open(str(part.absolute()), "w", format="mp4", options=FASTSTART) as container,
    ):
        container.metadata["comment"] = comment
        options = {"crf": str(crf), "preset": "medium", "g": str(KEY_FRAME_EVERY), "x264-params": REPEATABLE}
        return encode_frames(container, frames, options)


def encode_frames(
    container: av.container.OutputContainer, frames: Iterable[np.ndarray], options: Mapping[str, str]
) -> int:
    """Encode frames `(height, width, 3)` uint8 into an open file, by options of libx264; return the count."""
    count, stream = 0, None
    for frame in frames:
        if stream is None:
            stream = container.add_stream("libx264", rate=FPS, options=dict(options))
            stream.height, stream.width = frame.shape[:2]
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG
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
    """Yield the frames of a video file, `(height, width, 3)` uint8."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def count_frames(path: Path) -> int | None:
    """Read the number of frames from an MP4 file's index; None where it is no complete MP4 file."""
    with contextlib.suppress(InputError), open_video(path) as container:
        return container.streams.video[0].frames if container.streams.video else None
    return None


def read_last_frame(path: Path) -> np.ndarray:
    """Read the last frame of a video file, `(height, width, 3)` uint8, decoding from the last key frame on.

    Raises:
        InputError: the file is missing, is no video, or is cut short.
    """
    with open_video(path) as container:
        if not container.streams.video:
            raise InputError("video_broken", path=str(path), reason="no video in it")
        stream = container.streams.video[0]
        end = None if stream.duration is None else (stream.start_time or 0) + stream.duration
        if end is not None:
            container.seek(end, stream=stream)  # to the last key frame before
        newest = collections.deque(container.decode(stream), maxlen=1)
        if not newest or _ends_before(newest[0], stream, end):
            raise InputError("video_broken", path=str(path), reason="its end is missing")
        return newest[0].to_ndarray(format="rgb24")


def _ends_before(frame: av.VideoFrame, stream: av.video.stream.VideoStream, end: int | None) -> bool:
    """Check whether a video's last frame ends before the file's stated end."""
    if frame.pts is None or end is None or stream.time_base is None:
        return False
    return frame.pts + max(frame.duration or 0, int(ENDS_WITHIN / stream.time_base)) < end


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a video file. Raises InputError for anything wrong with it, also later in the block."""
    try:
        # An absolute name: "http:a.mp4" would be an address.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            yield container
    except (OSError, ValueError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("video_broken", path=str(path), reason=reason) from error

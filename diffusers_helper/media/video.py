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
ENDS_WITHIN = Fraction(1, 4)
"""Seconds by which a complete file's last frame may end before the file's stated end."""


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Encode frames `(height, width, 3)` uint8 with even sides, atomically; return their number.

    One frame is in memory at a time. `crf` is the constant rate factor of libx264, 0 (lossless) to 51.
    """
    with (
        atomic_write(path) as part,
        av.open(str(part.absolute()), "w", format="mp4", options=FASTSTART) as container,
    ):
        container.metadata["comment"] = comment
        options = {"crf": str(crf), "preset": "medium", "g": str(KEY_FRAME_EVERY)}
        return encode_frames(container, frames, options)


def encode_frames(
    container: av.container.OutputContainer, frames: Iterable[np.ndarray], options: Mapping[str, str]
) -> int:
    """Encode frames `(height, width, 3)` uint8 into an open file, by options of libx264; return the count."""
    count, stream = 0, None
    for frame in frames:
        if stream is None:
            stream = _add_stream(container, frame, options)
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
        last = _last_frame(container, container.streams.video[0])
        if last is None:
            raise InputError("video_broken", path=str(path), reason="its end is missing")
        return last.to_ndarray(format="rgb24")


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


def _last_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> av.VideoFrame | None:
    """Decode the last frame; None where it ends before the file's stated end."""
    end = None if stream.duration is None else (stream.start_time or 0) + stream.duration
    if end is not None:
        container.seek(end, stream=stream)  # to the last key frame before
    newest = collections.deque(container.decode(stream), maxlen=1)
    last = newest[0] if newest else None
    if last is None or last.pts is None or end is None or stream.time_base is None:
        return last
    shown = max(last.duration or 0, int(ENDS_WITHIN / stream.time_base))
    return last if last.pts + shown >= end else None


def _add_stream(
    container: av.container.OutputContainer, frame: np.ndarray, options: Mapping[str, str]
) -> av.video.stream.VideoStream:
    stream = container.add_stream("libx264", rate=FPS, options=dict(options))
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream

"""MP4 files that play everywhere, H.264, yuv420p, BT.709, the index in front; and reading frames back."""

import collections
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
FASTSTART = {"movflags": "+faststart"}
KEY_FRAME_EVERY = 60 * FPS
"""Frames from one key frame to the next: each shows the same scene with other errors, and a still one would
twitch. A player that jumps into the middle has so much to decode at most, a second or two."""
ENDS_WITHIN = Fraction(1, 4)
"""Seconds by which a whole file's last frame may lie before the end that the file states."""


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Encode frames `(height, width, 3)` uint8, one in memory at a time; sides must be even.

    The file appears under its name when it is complete, or not at all.

    Returns:
        The number of frames written.

    Raises:
        OSError: the disk is full or the folder is gone.
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
    """Encode frames `(height, width, 3)` uint8 into an open file, with options of libx264.

    Returns:
        The number of frames.
    """
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
    """The frames of a video file as `(height, width, 3)` uint8, one after the other."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def count_frames(path: Path) -> int | None:
    """How many frames an MP4 file says that it has; None where it is no whole MP4 file."""
    try:
        with av.open(str(path.absolute())) as container:
            return container.streams.video[0].frames if container.streams.video else None
    except (OSError, ValueError, av.error.FFmpegError):
        return None


def read_last_frame(path: Path) -> np.ndarray:
    """The last frame of a video file, `(height, width, 3)` uint8, decoding no more than its last part.

    Raises:
        InputError: the file is missing, is no video, or is cut short.
    """
    try:
        with av.open(str(path.absolute())) as container:
            if not container.streams.video:
                raise InputError("video_broken", path=str(path), reason="no video in it")
            last = _last_frame(container, container.streams.video[0])
            if last is None:
                raise InputError("video_broken", path=str(path), reason="its end is missing")
            return last.to_ndarray(format="rgb24")
    except (OSError, ValueError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("video_broken", path=str(path), reason=reason) from error


def _last_frame(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> av.VideoFrame | None:
    """The frame at the end that the file says it has; None where it has no such end."""
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

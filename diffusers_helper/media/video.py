"""MP4 files that play everywhere (H.264, yuv420p, BT.709, the index in front), and reading frames back."""

import collections
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
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
and with AVX-512 from run to run (12 of 12 encodings; measured in `benchmarks/log.md`)."""
STITCHABLE = "stitchable=1"
"""The option with which the parameter sets follow from the size alone, and from no `crf`: so videos of one
size can be joined (see `joining`)."""
ENDS_WITHIN = Fraction(1, 4)
"""Seconds by which a complete file's last frame may end before the file's stated end."""


def write_mp4(path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str) -> int:
    """Write frames as `encode_mp4` does, atomically; return their number."""
    with atomic_write(path) as part:
        return encode_mp4(part, frames, crf=crf, comment=comment)


def encode_mp4(
    path: Path, frames: Iterable[np.ndarray], *, crf: int, comment: str, continues: int | None = None
) -> int:
    """Encode frames `(height, width, 3)` uint8 with even sides; return their number.

    One frame is in memory at a time. Frames give the same file each time, on any number of cores.

    Args:
        crf: the constant rate factor of libx264, 0 (lossless) to 51.
        continues: for a video that is to be joined to another one, the id of its parameter sets. Its second
            frame is a key frame, too, from which on its packets can be copied.
    """
    with av.open(str(path.absolute()), "w", format="mp4", options=FASTSTART) as container:
        container.metadata["comment"] = comment
        options = {"crf": str(crf), "preset": "medium", "g": str(KEY_FRAME_EVERY), "forced-idr": "1"}
        options["x264-params"] = x264_params(continues or 0)
        return encode_frames(container, frames, options, () if continues is None else (1,))


def x264_params(set_id: int) -> str:
    """Return libx264's own options for a file whose parameter sets have this id."""
    return f"{REPEATABLE}:{STITCHABLE}:sps-id={set_id}"


def encode_frames(
    container: av.container.OutputContainer,
    frames: Iterable[np.ndarray],
    options: Mapping[str, str],
    key_frames: Collection[int] = (),
) -> int:
    """Encode frames `(height, width, 3)` uint8 into an open file, by options of libx264; return the count.

    Those at the places `key_frames` become key frames.
    """
    count, stream = 0, None
    for frame in frames:
        if stream is None:
            stream = container.add_stream("libx264", rate=FPS, options=dict(options))
            set_format(stream.codec_context, *frame.shape[:2])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        if count in key_frames:
            picture.pict_type = PictureType.I
        container.mux(stream.encode(picture))
        count += 1
    if stream is not None:
        container.mux(stream.encode(None))
    return count


def set_format(context: av.VideoCodecContext, height: int, width: int) -> None:
    """Set the size and the format of all our videos."""
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG


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


def read_size_and_length(path: Path) -> tuple[int, int, int]:
    """Read a video's height, width and number of frames from its index.

    Raises:
        InputError: the file is missing, is no video, or is damaged.
    """
    with open_video(path) as container:
        stream = _video_stream(container, path)
        return stream.height, stream.width, stream.frames


def read_first_frame(path: Path) -> np.ndarray:
    """Read the first frame of a video file, `(height, width, 3)` uint8.

    Raises:
        InputError: the file is missing, is no video, or is damaged.
    """
    with open_video(path) as container:
        for frame in container.decode(_video_stream(container, path)):
            return frame.to_ndarray(format="rgb24")
    raise InputError("video_broken", path=str(path), reason="no frame in it")


def _video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise InputError("video_broken", path=str(path), reason="no video in it")
    return container.streams.video[0]


def read_last_frame(path: Path) -> np.ndarray:
    """Read the last frame of a video file, `(height, width, 3)` uint8, decoding from the last key frame on.

    Raises:
        InputError: the file is missing, is no video, or is cut short.
    """
    with open_video(path) as container:
        stream = _video_stream(container, path)
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
        if path.is_fifo():  # opening it would wait for ever
            raise OSError("it is a pipe")
        # An absolute name: "http:a.mp4" would be an address.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            yield container
    except (OSError, ValueError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("video_broken", path=str(path), reason=reason) from error

"""Two MP4 files of ours as one, by copying their packets: no frame is encoded again.

The second video continues the first: its first frame, which shows the first video's last one, is left out.
It was encoded for that (`video.encode_mp4`): its second frame is a key frame, and its parameter sets are
those of the first video, or have an id that is free there. So the joined file's header holds the sets of
both, and a decoder finds the right ones from any key frame on.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags

from ..errors import InputError
from ..files.atomic import atomic_write
from ..request import GenerationRequest
from ..sections import FPS
from .avc_header import MAX_SETS, AvcHeader, split_stream
from .embedded_request import read_packed
from .images import to_data_uri
from .video import FASTSTART, open_video, read_last_frame, set_format, x264_params

FRAME = Fraction(1, FPS)
"""Seconds from one frame to the next."""

DELAY = 2
"""Frames by which libx264 decodes each frame before it is shown: one for B-frames, one for their pyramid."""


@dataclass(frozen=True)
class PreviousVideo:
    """The video that another one continues. `header` is that of its frames."""

    path: Path
    height: int
    width: int
    frames: int
    header: AvcHeader

    def choose_set_id(self) -> int:
        """Return the id of the parameter sets of a video that is to be joined to this one.

        Raises:
            InputError: every id is in use.
        """
        for number in range(MAX_SETS):
            if number not in self.header.ids or self._encoded_sets(number) <= self.header.sets:
                return number
        raise InputError("previous_video_foreign", path=str(self.path))

    def _encoded_sets(self, number: int) -> frozenset[bytes]:
        """Return the parameter sets with an id that our videos of this size have."""
        context: Any = av.CodecContext.create("libx264", "w")
        set_format(context, self.height, self.width)
        context.framerate, context.time_base = FPS, FRAME
        context.flags |= Flags.global_header
        context.options = {"preset": "medium", "x264-params": x264_params(number)}
        context.open()
        return split_stream(context.extradata)


def read_previous(path: Path) -> PreviousVideo:
    """Read the index of a video that another one is to continue.

    Raises:
        InputError: it is missing or damaged (`video_broken`), or its frames are stored in another way than
            ours (`previous_video_foreign`).
    """
    with open_video(path) as container:
        return _read_index(container, path)


def continue_video(request: GenerationRequest) -> GenerationRequest:
    """Return a request that continues a video with what it leaves out: the start image, and the size.

    Raises:
        InputError: the earlier video cannot be continued: it is missing, not made by us, of another size.
    """
    path = Path(request.previous_video or "")
    previous = read_previous(path)
    if read_packed(path) is None:
        raise InputError("previous_video_foreign", path=str(path))
    if request.start_image is None:
        request = replace(request, start_image=to_data_uri(read_last_frame(path)))
    if request.width is None:
        request = replace(request, width=previous.width, height=previous.height)
    if (request.width, request.height) != (previous.width, previous.height):
        raise InputError("previous_video_size", path=str(path), width=previous.width, height=previous.height)
    return request


def join_mp4(previous: Path, part: Path, target: Path, *, comment: str) -> int:
    """Write a video and the one that continues it as one file, atomically; return the number of frames.

    Raises:
        InputError: the earlier video is missing or damaged, or they do not go together.
        OSError: the file cannot be written.
    """
    foreign = InputError("previous_video_foreign", path=str(previous))
    before, after = read_previous(previous), read_previous(part)
    try:
        if (before.height, before.width) != (after.height, after.width):
            raise ValueError("its size is another one")
        header = before.header.joined(after.header)
        with (
            atomic_write(target) as whole,
            av.open(str(previous.absolute())) as first,
            av.open(str(part.absolute())) as second,
            av.open(str(whole.absolute()), "w", format="mp4", options=FASTSTART) as container,
        ):
            container.metadata["comment"] = comment
            stream = container.add_stream_from_template(first.streams.video[0])
            stream.time_base, stream.codec_context.extradata = FRAME, header.to_bytes()
            for packet in _joined_packets(first, second):
                packet.stream = stream
                container.mux(packet)
    except ValueError as error:
        raise foreign from error
    return before.frames + after.frames - 1


def _joined_packets(
    first: av.container.InputContainer, second: av.container.InputContainer
) -> Iterator[av.Packet]:
    """Yield the packets of a video, then those of a second one but for its first frame, timed as one.

    Raises:
        ValueError: their frames are not a thirtieth of a second apart, or are not there.
    """
    count = 0
    for source, left_out in ((first, 0), (second, 1)):
        begin, shown = count, set[int]()
        for packet in itertools.islice(_packets(source), left_out, None):
            number = _frame_number(packet) - left_out
            shown.add(number)
            packet.time_base = FRAME
            packet.pts, packet.dts, packet.duration = begin + number, count - DELAY, 1
            if packet.dts > packet.pts:
                raise ValueError("a frame is decoded after it is shown")
            yield packet
            count += 1
        if shown != set(range(source.streams.video[0].frames - left_out)):
            raise ValueError("frames are missing")


def _packets(source: av.container.InputContainer) -> Iterator[av.Packet]:
    return (packet for packet in source.demux(video=0) if packet.size)  # the last one is PyAV's end marker


def _frame_number(packet: av.Packet) -> int:
    """Return which frame of its video a packet holds, by its time."""
    if packet.pts is None or packet.time_base is None or packet.is_corrupt:  # the file is cut
        raise ValueError("a frame has no time, or is not whole")
    number = packet.pts * packet.time_base / FRAME
    if number.denominator != 1:
        raise ValueError("a frame is at no thirtieth of a second")
    return number.numerator


def _read_index(container: av.container.InputContainer, path: Path) -> PreviousVideo:
    """Read the index of an opened video; raises as `read_previous` does."""
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise InputError("video_broken", path=str(path), reason="no video in it")
    is_ours = (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p") and stream.average_rate == FPS
    try:
        if not is_ours or len(container.streams) > 1:
            raise ValueError("its format is not ours")
        header = AvcHeader.parse(stream.codec_context.extradata or b"")
    except ValueError as error:
        raise InputError("previous_video_foreign", path=str(path)) from error
    return PreviousVideo(path, stream.height, stream.width, stream.frames, header)

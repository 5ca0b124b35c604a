"""The partial video: what a job has finished so far as a file that plays, renewed after every section.

The head, the first `overlap` frames, can still change, because the next section may replace it; the rest is
closed. Closed frames are encoded once, the head anew each time, and both are joined by copying packets. So a
section costs the encoding of its own frames and of the head, however long the video is, and only the head's
encoding is in memory.
"""

import contextlib
import errno
import io
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import av

from ..files.atomic import atomic_write
from ..media.video import FASTSTART, encode_frames
from ..sections import FPS
from .folder import JobFolder
from .section_files import PARTIAL_PREFIX, list_partial_videos

logger = logging.getLogger(__name__)

PIECE = {
    "preset": "veryfast",
    "crf": "20",
    # One key frame, at the beginning, and no frame that looks ahead: so pieces can be joined without being
    # decoded, because a packet's time follows from its position.
    "x264-params": "keyint=infinite:scenecut=0:bframes=0:open-gop=0",
}
KEEP_NEWEST = 2
"""The number of files that stay: somebody may still be watching the one before the last."""


class PartialVideo:
    """Writes the partial video of a job into the job's folder, which deletes it in the end."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._path = folder.path.absolute()  # "http:a.mp4" would be an address
        self._closed: list[Path] = []
        """Encoded pieces of frames that no longer change, the end of the video first."""
        self._closed_frames = 0

    def write(self) -> Path | None:
        """Write the partial video under a new name and delete the oldest ones; call after each section.

        A run that resumes calls it before its first new section, too.

        Returns:
            The file; None where it could not be written, which must not end the job. The next call makes
            up for it.

        Raises:
            OSError: the disk is full, which does end the job.
        """
        try:
            path = self._write()
        except (OSError, av.error.FFmpegError) as error:
            if error.errno == errno.ENOSPC:
                raise
            logger.warning("the partial video could not be written", exc_info=True)
            return None
        written = sorted(list_partial_videos(self._folder.path), key=lambda video: video.stat().st_mtime_ns)
        for old in written[:-KEEP_NEWEST]:
            with contextlib.suppress(OSError):  # somebody watches it (Windows); it goes with the job's folder
                old.unlink()
        return path

    def _write(self) -> Path:
        self._close()
        head = io.BytesIO()
        _encode(head, self._folder, 0, self._folder.overlap)
        head.seek(0)
        path = self._path / f"{PARTIAL_PREFIX}{self._folder.num_sections:03d}.mp4"
        with atomic_write(path, flush=False) as part:
            _join(part, [head, *reversed(self._closed)])
        return path

    def _close(self) -> None:
        """Encode the frames that moved out of the head since the last time."""
        begin, end = self._folder.overlap, self._folder.num_frames - self._closed_frames
        if begin >= end:
            return
        path = self._path / f"closed_{len(self._closed):03d}.mp4"
        with atomic_write(path, flush=False) as part:
            _encode(part, self._folder, begin, end)
        self._closed.append(path)
        self._closed_frames += end - begin


def _encode(target: Path | BinaryIO, folder: JobFolder, start: int, stop: int) -> None:
    with av.open(target, "w", format="mp4") as container:
        encode_frames(container, folder.frames(start, stop), PIECE)


def _join(target: Path, pieces: Iterable[Path | BinaryIO]) -> None:
    """Copy the packets of pieces that were encoded alike into one file."""
    with av.open(target, "w", format="mp4", options=FASTSTART) as container:
        stream, position = None, 0
        for piece in pieces:
            with av.open(piece, "r", format="mp4") as source:
                if stream is None:
                    stream = container.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if not packet.size:  # PyAV's end marker
                        continue
                    assert packet.time_base is not None
                    packet.duration = round(1 / FPS / packet.time_base)
                    packet.pts = packet.dts = position * packet.duration
                    packet.stream = stream
                    container.mux(packet)
                    position += 1

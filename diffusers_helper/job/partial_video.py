"""The video so far, as a file that plays, after every section: for somebody who watches.

Each frame is encoded once when it can no longer change, and once more as long as it can. What can change is
the head, the first `overlap` frames, of which the next section may take the place; the rest stays as
it is. So a section costs the encoding of its own frames and of the head, and a copy of the packets that are
there, however long the video is. In memory is the head's encoding, never the video's.
"""

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
    # decoded, the time of each packet being its place.
    "x264-params": "keyint=infinite:scenecut=0:bframes=0:open-gop=0",
}
KEEP_NEWEST = 2
"""Newest files that stay: somebody may still be watching the one before the last."""


class PartialVideo:
    """The video so far of a job, in the job's folder, which removes what is left of it."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._closed: list[Path] = []
        """Encoded pieces of what no longer changes, the end of the video first."""
        self._closed_frames = 0
        self._written = list_partial_videos(folder.path)
        """An earlier run's last one may just be watched."""

    def write(self) -> Path | None:
        """Write the video so far under a new name and delete the oldest ones; call after each section.

        A run that goes on with an earlier one's sections calls it before its first own one.

        Returns:
            The file, or None where it could not be written: the job is worth more than a look at it. The
            next call tries again, with what was missed.

        Raises:
            OSError: the disk is full, which is the job's own trouble.
        """
        try:
            path = self._write()
        except (OSError, av.error.FFmpegError) as error:
            if error.errno == errno.ENOSPC:
                raise
            logger.warning("the video so far could not be written", exc_info=True)
            return None
        self._written = [*(old for old in self._written if old != path), path]
        self._delete_older()
        return path

    def _write(self) -> Path:
        self._close()
        head = io.BytesIO()
        _encode(head, self._folder, 0, self._folder.overlap)
        head.seek(0)
        path = self._folder.path / f"{PARTIAL_PREFIX}{self._folder.num_sections:03d}.mp4"
        with atomic_write(path, flush=False) as part:
            _join(part, [head, *reversed(self._closed)])
        return path

    def _close(self) -> None:
        """Encode what came in behind the head since the last time."""
        begin, end = self._folder.overlap, self._folder.num_frames - self._closed_frames
        if begin >= end:
            return
        path = self._folder.path / f"closed_{len(self._closed):03d}.mp4"
        with atomic_write(path, flush=False) as part:
            _encode(part, self._folder, begin, end)
        self._closed.append(path)
        self._closed_frames += end - begin

    def _delete_older(self) -> None:
        while len(self._written) > KEEP_NEWEST:
            old = self._written.pop(0)
            try:
                old.unlink()
            except OSError:  # on Windows somebody watches it; the job's folder goes as a whole later
                logger.debug("%s stays for now", old, exc_info=True)


def _encode(target: Path | BinaryIO, folder: JobFolder, start: int, stop: int) -> None:
    with av.open(_named(target), "w", format="mp4") as container:
        encode_frames(container, folder.frames(start, stop), PIECE)


def _join(target: Path, pieces: Iterable[Path | BinaryIO]) -> None:
    """Copy the packets of pieces that were encoded alike into one file, one piece after the other."""
    with av.open(_named(target), "w", format="mp4", options=FASTSTART) as container:
        stream, place = None, 0
        for piece in pieces:
            with av.open(_named(piece), "r", format="mp4") as source:
                if stream is None:
                    stream = container.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if not packet.size:  # PyAV's mark of the end
                        continue
                    assert packet.time_base is not None
                    packet.duration = round(1 / FPS / packet.time_base)
                    packet.pts = packet.dts = place * packet.duration
                    packet.stream = stream
                    container.mux(packet)
                    place += 1


def _named(file: Path | BinaryIO) -> str | BinaryIO:
    return str(file.absolute()) if isinstance(file, Path) else file

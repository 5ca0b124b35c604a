"""The jobs' own copies of their pictures, on the disk. Knows no queue."""

import errno
import itertools
import re
import shutil
from pathlib import Path

import numpy as np

from diffusers_helper.errors import MachineError
from diffusers_helper.images import read_image
from diffusers_helper.request import GenerationRequest, is_data_uri
from diffusers_helper.sections import start_picture

from .job_pictures import make_thumbnail

MAX_ENTRIES = 10_000
"""More of a foreign folder is not even looked at."""
PREFIX = "job_"
_OURS = re.compile(PREFIX + "[0-9a-f]{16}")


class JobFiles:
    """Copies of pictures in `temp`, one folder a job; nobody else may use it at the same time.

    What earlier runs left there is deleted, other things are left alone. Job ids are 16 hex digits.
    """

    def __init__(self, temp: Path) -> None:
        self._temp = temp.absolute()
        self.close()

    def keep(self, job_id: str, request: GenerationRequest) -> tuple[GenerationRequest, bytes]:
        """Read every picture of a request and copy its file; one picture is in memory at a time.

        Returns:
            The request with the copies' paths (pictures in `data:` URIs stay where they are), and the
            thumbnail of the picture that the video starts with.

        Raises:
            InputError: a picture cannot be read; nothing is kept.
            MachineError: a copy cannot be written; nothing is kept.
        """
        start = start_picture(request)
        names = [start, request.end_image, *(keyframe.image for keyframe in request.keyframes)]
        copies: dict[str, str] = {}
        thumbnail = b""
        try:
            for name in dict.fromkeys(name for name in names if name is not None):
                shown = _look_at(name, is_shown=name == start)
                thumbnail = shown or thumbnail
                copies[name] = name if is_data_uri(name) else str(self._copy(name, job_id, len(copies)))
        except BaseException:
            self.drop(job_id)
            raise
        return request.map_images(lambda name: None if name is None else copies[name]), thumbnail

    def drop(self, job_id: str) -> None:
        """Delete a job's copies; no matter whether there are any."""
        shutil.rmtree(self._folder(job_id), ignore_errors=True)

    def close(self) -> None:
        """Delete all copies."""
        try:
            entries = list(itertools.islice(self._temp.iterdir(), MAX_ENTRIES))
        except OSError:  # there is no such folder yet, or none that can be read
            return
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)  # which follows no link

    def _folder(self, job_id: str) -> Path:
        return self._temp / f"{PREFIX}{job_id}"

    def _copy(self, name: str, job_id: str, number: int) -> Path:
        source, folder = Path(name), self._folder(job_id)
        target = folder / f"{number}{source.suffix[:10]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise MachineError("disk_full", path=str(folder)) from error
            reason = error.strerror or str(error)
            raise MachineError("cannot_write", path=str(error.filename or target), reason=reason) from error
        return target


def _look_at(name: str, is_shown: bool) -> bytes:
    """Read a picture to see that it can be read; returns its thumbnail where that is shown."""
    picture: np.ndarray = read_image(name)
    return make_thumbnail(picture) if is_shown else b""

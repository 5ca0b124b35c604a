"""The disks: room for videos and models, whether the models are whole, how fast they are read. No torch."""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from diffusers_helper.errors import EngineError, InputError

from ..download.model_folders import ModelFolders, find_models_in, take_inventory
from .facts import FolderFacts, ModelsFacts

DEMO_BYTES = 2**30
"""A transformer below this size is one of the demo models."""
SAMPLES, SAMPLE_BYTES = 16, 2**22
SAMPLE_SECONDS = 2.0


def look_at_folder(path: Path) -> FolderFacts:
    """The room in a folder; one that is not there yet has that of the folder in which it will be made."""
    path = path.absolute()
    there = next((place for place in (path, *path.parents) if place.is_dir()), None)
    if there is None:
        return FolderFacts(path, free=None, writable=False)
    try:
        free: int | None = shutil.disk_usage(there).free
    except OSError:
        free = None
    return FolderFacts(path, free, _can_write(there))


def look_at_models(places: ModelFolders) -> ModelsFacts:
    """What is there of the models: headers and sizes are read, and some pieces to see how fast that is."""
    room = look_at_folder(places.target)
    found = take_inventory(places)
    if found.state != "complete":
        return ModelsFacts(found.state, room, _problem(places), found.num_bytes)
    try:
        files = find_models_in(places)
    except InputError as error:  # each part is whole, but they do not belong together
        return ModelsFacts("partly", room, error, found.num_bytes)
    paths = sorted({tensor.path for tensor in files.transformer.checkpoint.tensors.values()})
    if sum(path.stat().st_size for path in paths) < DEMO_BYTES:
        return ModelsFacts("demo", room)
    return ModelsFacts("complete", room, num_bytes=found.num_bytes, bytes_per_second=read_speed(paths))


def _problem(places: ModelFolders) -> EngineError | None:
    """What is wrong with models that are not complete."""
    try:
        find_models_in(places)
    except EngineError as error:
        return error
    return None


def read_speed(paths: list[Path]) -> float | None:
    """Bytes per second of the slower half of some pieces, read here and there from the largest file.

    The slower half, because the system may still hold the other one in memory from an earlier job.
    """
    try:
        path = max(paths, key=lambda path: path.stat().st_size)
        seconds = sorted(_time_pieces(path))
    except (OSError, ValueError):
        return None
    slower = seconds[len(seconds) // 2 :]
    return SAMPLE_BYTES * len(slower) / sum(slower) if sum(slower) else None


def _time_pieces(path: Path) -> Iterator[float]:
    """Seconds that each piece takes, for at most SAMPLE_SECONDS in all; each time at other places."""
    step = (path.stat().st_size - SAMPLE_BYTES) // SAMPLES
    begin = time.perf_counter()
    buffer = bytearray(SAMPLE_BYTES)
    with path.open("rb", buffering=0) as file:
        for number in range(SAMPLES):
            file.seek(number * step + random.randrange(max(step, 1)))
            before = time.perf_counter()
            file.readinto(buffer)
            after = time.perf_counter()
            yield after - before
            if after - begin > SAMPLE_SECONDS:
                return


def _can_write(folder: Path) -> bool:
    """Asked by doing: what the system says of permissions is not the whole truth on Windows."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

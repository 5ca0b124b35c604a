"""The disks: free space for videos and models, whether the models are complete, how fast they are read."""

import contextlib
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from diffusers_helper.errors import EngineError, MachineError
from diffusers_helper.public import check_contents, record_in

from ..download.model_folders import ModelFolders, find_models_in, free_bytes, nearest_folder, take_inventory

DEMO_BYTES = 2**30
"""Bytes below which a transformer is one of the demo's models."""
SAMPLES, SAMPLE_BYTES = 16, 2**22
SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class FolderFacts:
    """A folder to write to; `free` (bytes) and `writable` are of its nearest parent until it is made.

    `in_onedrive` tells whether OneDrive uploads what lies there.
    """

    path: Path
    free: int | None
    writable: bool = True
    in_onedrive: bool = False


@dataclass(frozen=True)
class ModelsFacts:
    """The models in a folder: their bytes, the `error` of incomplete ones, and the speed of reading them."""

    state: Literal["complete", "demo", "partly", "missing"]
    folder: FolderFacts
    error: EngineError | None = None
    num_bytes: int = 0
    bytes_per_second: float | None = None


def inspect_folder(path: Path) -> FolderFacts:
    """Find how much is free in a folder and whether it can be written, without making it."""
    free, writable = None, False
    with contextlib.suppress(MachineError):
        free = free_bytes(path)
    # Windows' permissions alone do not show it
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=nearest_folder(path)):
        writable = True
    return FolderFacts(path.absolute(), free, writable, lies_in_onedrive(path))


def lies_in_onedrive(path: Path) -> bool:
    """Return whether OneDrive would upload what is in a folder; Windows names its folders in variables."""
    names = ("OneDrive", "OneDriveConsumer", "OneDriveCommercial")
    roots = [Path(root).resolve() for root in map(os.environ.get, names) if root]
    return any(path.resolve().is_relative_to(root) for root in roots)


def inspect_models(folders: ModelFolders, cache: Path | None = None) -> ModelsFacts:
    """Find which models are there, from headers, sizes and samples, and how fast they are read.

    The app's `cache`, where there is one, remembers the files whose samples were good.
    """
    folder, found = inspect_folder(folders.target), take_inventory(folders)
    try:
        files = find_models_in(folders)
        check_contents(files, None if cache is None else record_in(cache))
    except EngineError as error:  # also where each part is complete, but they do not belong together
        is_there = found.state == "complete" or error.code == "model_file_reduced"
        state = "partly" if is_there else found.state
        return ModelsFacts(state, folder, error, found.num_bytes)
    paths = sorted({tensor.path for tensor in files.transformer.checkpoint.tensors.values()})
    if sum(path.stat().st_size for path in paths) < DEMO_BYTES:
        return ModelsFacts("demo", folder)
    return ModelsFacts("complete", folder, num_bytes=found.num_bytes, bytes_per_second=read_speed(paths))


def read_speed(paths: list[Path]) -> float | None:
    """Measure bytes per second with samples of the largest file; the slower half of them counts.

    The system may still hold the other half in memory from an earlier job. Takes about SAMPLE_SECONDS.
    """
    seconds: list[float] = []
    buffer = bytearray(SAMPLE_BYTES)
    try:
        path = max(paths, key=lambda path: path.stat().st_size)
        step = (path.stat().st_size - SAMPLE_BYTES) // SAMPLES
        with path.open("rb", buffering=0) as file:
            while len(seconds) < SAMPLES and sum(seconds) < SAMPLE_SECONDS:
                file.seek(len(seconds) * step + random.randrange(max(step, 1)))
                begin = time.perf_counter()
                file.readinto(buffer)
                seconds.append(time.perf_counter() - begin)
        return SAMPLE_BYTES / fmean(sorted(seconds)[len(seconds) // 2 :])
    except (OSError, ValueError, ZeroDivisionError):
        return None

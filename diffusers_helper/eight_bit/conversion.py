"""The conversion of the transformer to 8-bit weights, once, into their own folder, as a stage of a job."""

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MachineError, StopRequested
from ..events import Notice, StageProgress, StageStarted
from ..files.atomic import atomic_write, delete_file
from ..files.exclusive_lock import exclusive_lock
from ..machine_errors import check_room, machine_errors
from ..weights.checkpoint import Checkpoint, unreadable
from ..weights.model_files import PARTS, ModelFiles, ModelPart, find_part
from .folder import (
    CONFIG,
    INDEX,
    LOCK,
    MANIFEST,
    REPOSITORY,
    Manifest,
    eight_bit_folder,
    identity_of,
    is_converted,
    missing_bytes,
    signature_of,
)
from .shard_plan import Shard, plan_shards, weight_map
from .shards import file_digest, write_shard

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


def with_eight_bit(files: ModelFiles, root: Path) -> ModelFiles:
    """Replace the transformer of a set by its 8-bit version.

    Raises:
        InputError: there is none, it is not whole, or it was made from other files.
    """
    folder = eight_bit_folder(root)
    try:
        if not is_converted(folder, files.transformer):
            raise InputError("eight_bit_not_ready", path=str(folder))
        spec = dataclasses.replace(PARTS["transformer"], repository=REPOSITORY)
        part = dataclasses.replace(find_part(root, spec), is_eight_bit=True)
        return dataclasses.replace(files, transformer=part)
    except OSError as error:
        raise unreadable(folder, error) from error


def convert(
    part: ModelPart, target: Path, device: torch.device = CPU
) -> Generator[tuple[int, int], None, None]:
    """Write the 8-bit weights to `target`, or continue; yield the bytes that are done, and all bytes.

    Finished files are read and kept if their digests match, so that this also repairs a folder. They stay if
    the generator is closed. `device` quantizes.

    Raises:
        InputError: the source changed, or holds numbers that are not finite.
        MachineError: the disk is full, cannot be read or written, or does not return what was written.
    """
    with machine_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        shards = plan_shards(part.checkpoint)
        manifest = _begin(target, identity_of(part))
        check_room(target, missing_bytes(shards, manifest.files))
        done, total = 0, sum(shard.content_bytes for shard in shards)
        yield done, total
        for shard in shards:
            for num_bytes in _ensure_shard(part.checkpoint, shard, manifest, device):
                done += num_bytes
                yield done, total
        index: dict[str, Any] = {"metadata": {}, "weight_map": weight_map(shards)}
        small = {CONFIG: (part.folder / CONFIG).read_bytes(), INDEX: json.dumps(index, indent=1).encode()}
        for name, content in small.items():
            with atomic_write(target / name) as new:
                new.write_bytes(content)
            manifest.add(name, hashlib.sha256(content).hexdigest())
        manifest.finish()
        logger.info("8-bit weights in %s: %.2f GiB", target, total / 2**30)


def make_eight_bit(
    source: ModelPart, folder: Path, device: torch.device, stop: threading.Event
) -> Generator[Notice | StageStarted | StageProgress, None, None]:
    """Make the 8-bit weights in `folder` on `device`, or go on with them, and yield the progress.

    The finished files stay however it ends, also when the caller wants no more events.

    Raises:
        StopRequested: `stop` was set.
        InputError: another process is making them; the source cannot be used.
        MachineError: the disk is full, cannot be read or written, or gives back something else.
    """
    if stop.is_set():
        raise StopRequested
    yield Notice("eight_bit", {"path": str(folder)})
    yield StageStarted("eight_bit")
    busy = InputError("eight_bit_busy", path=str(folder))  # two would delete each other's files
    reported = -1
    try:
        with exclusive_lock(folder / LOCK, busy), closing(convert(source, folder, device)) as progress:
            for done, total in progress:
                if stop.is_set():
                    raise StopRequested
                percent = 100 * done // total
                if percent != reported:
                    reported = percent
                    yield StageProgress(percent / 100)
    except MachineError as error:
        if error.code != "disk_too_small":
            raise
        needed, free = error.values["needed"], error.values["free"]
        raise MachineError("eight_bit_disk_too_small", path=str(folder), needed=needed, free=free) from error


def remove_corrupt_shards(folder: Path) -> bool:
    """Read all files of a folder and delete those whose digest does not match; `convert` makes them again.

    Returns True if there was such a file. Raises MachineError where something cannot be read or deleted.
    """
    with machine_errors(folder):
        manifest = Manifest.read(folder)
        if manifest is None:
            return False
        corrupt = [n for n, (_, digest) in manifest.files.items() if not _matches(folder / n, digest)]
        for name in corrupt:
            manifest.forget(name)
        return bool(corrupt)


def _begin(target: Path, source: str) -> Manifest:
    """Return the manifest of an earlier run's files that have the right sizes; delete the others."""
    manifest = Manifest.read(target)
    if manifest is None or manifest.source != source:
        delete_file(target / MANIFEST)  # first, because others rely on it
        manifest = Manifest(target, source)
    for name, (known, _) in list(manifest.files.items()):
        signature = signature_of(target / name)
        if signature is None or signature.num_bytes != known.num_bytes:
            manifest.forget(name)
    for path in (*target.glob("diffusion_pytorch_model-*.safetensors"), *target.glob("*.part")):
        if path.name not in manifest.files:
            delete_file(path)
    return manifest


def _ensure_shard(
    checkpoint: Checkpoint, shard: Shard, manifest: Manifest, device: torch.device
) -> Iterator[int]:
    """Keep a finished file whose digest matches, or write it; yield the bytes that are done as they are."""
    path = manifest.folder / shard.name
    if shard.name in manifest.files:
        _, digest = manifest.files[shard.name]
        if _matches(path, digest):
            manifest.add(shard.name, digest)  # a copy has another time
            yield shard.content_bytes
            return
        logger.warning("%s is damaged and made again", path)
        manifest.forget(shard.name)
    manifest.add(shard.name, (yield from write_shard(checkpoint, shard, path, device)))


def _matches(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest

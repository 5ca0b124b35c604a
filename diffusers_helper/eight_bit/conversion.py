"""The conversion of the transformer to 8-bit weights, once, into a folder of their own, as a stage of a job.

`conversion.sealed` in that folder records the source, each file's digest and that all files are there. A
folder without it, or made from other files than those that are there now, is not used.
"""

import dataclasses
import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MachineError, StopRequested
from ..events import Notice, StageProgress, StageStarted
from ..files.atomic import atomic_write, delete_file
from ..files.checksummed import read_metadata, write_checksummed
from ..files.exclusive_lock import exclusive_lock
from ..machine_errors import check_room, machine_errors
from ..weights.checkpoint import Checkpoint, FileSignature, unreadable
from ..weights.model_files import FRAMEPACK, PARTS, ModelFiles, ModelPart, content_fingerprint, find_part
from .shards import Shard, file_digest, plan_shards, weight_map, write_shard

logger = logging.getLogger(__name__)

REPOSITORY = FRAMEPACK + "-8bit"
MANIFEST, LOCK = "conversion.sealed", "lock"
CONFIG, INDEX = "config.json", "diffusion_pytorch_model.safetensors.index.json"
VERSION = 2
"""The version of the files; raised when the same weights give other files."""
SPARE_BYTES = 2**20
"""Bytes of disk space for the small files."""
CPU = torch.device("cpu")


def eight_bit_folder(root: Path) -> Path:
    """Return the folder of the 8-bit weights below `root`."""
    return root / REPOSITORY


def is_converted(folder: Path, source: ModelPart) -> bool:
    """Return whether a folder holds all files made from `source`, by sizes and times; `convert` reads them.

    Raises:
        OSError: something cannot be read now.
    """
    manifest = _Manifest.read(folder)
    return (
        manifest is not None
        and manifest.complete
        and manifest.source == _identity(source)
        and all(_signature(folder / name) == signature for name, (signature, _) in manifest.files.items())
    )


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
        return dataclasses.replace(files, transformer=find_part(root, spec))
    except OSError as error:
        raise unreadable(folder, error) from error


def choose_root(source: ModelPart, roots: Sequence[Path]) -> Path:
    """Choose the root of a transformer's 8-bit weights: the first that has all of them, else the first that
    can be written, else the last. Raises OSError."""
    for root in roots:
        if is_converted(eight_bit_folder(root), source):
            return root
    return next((root for root in roots if _can_write(root)), roots[-1])


def _can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, or in the one in which it will be made."""
    folder = folder.absolute()
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    try:
        with tempfile.TemporaryFile(dir=there):
            return there is not None
    except OSError:
        return False


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
        manifest = _begin(target, _identity(part))
        missing = sum(shard.content_bytes for shard in shards if shard.name not in manifest.files)
        check_room(target, missing + SPARE_BYTES)
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
        manifest = _Manifest.read(folder)
        if manifest is None:
            return False
        corrupt = [n for n, (_, digest) in manifest.files.items() if not _matches(folder / n, digest)]
        for name in corrupt:
            manifest.forget(name)
        return bool(corrupt)


@dataclasses.dataclass
class _Manifest:
    """The record of a folder on disk: each file's signature and SHA-256."""

    folder: Path
    source: str
    files: dict[str, tuple[FileSignature, str]] = dataclasses.field(default_factory=dict)
    complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> "_Manifest | None":
        """Return a folder's manifest, None if there is none of this version."""
        facts = read_metadata(folder / MANIFEST)
        if facts is None or facts["version"] != VERSION:
            return None
        files = {name: (FileSignature(*signature), digest) for name, signature, digest in facts["files"]}
        return cls(folder, facts["source"], files, facts["complete"])

    def add(self, name: str, digest: str) -> None:
        """Record a file that was written or verified."""
        signature = _signature(self.folder / name)
        assert signature is not None
        self.files[name] = (signature, digest)
        self._write()

    def forget(self, name: str) -> None:
        """Delete a file and its record."""
        del self.files[name]
        self.complete = False
        self._write()
        delete_file(self.folder / name)

    def finish(self) -> None:
        self.complete = True
        self._write()

    def _write(self) -> None:
        files = [(name, dataclasses.astuple(seen), digest) for name, (seen, digest) in self.files.items()]
        facts = {"version": VERSION, "source": self.source, "complete": self.complete, "files": files}
        write_checksummed(self.folder / MANIFEST, (), facts)


def _begin(target: Path, source: str) -> _Manifest:
    """Return the manifest of an earlier run's files that have the right sizes; delete the others."""
    manifest = _Manifest.read(target)
    if manifest is None or manifest.source != source:
        delete_file(target / MANIFEST)  # first, because others rely on it
        manifest = _Manifest(target, source)
    for name, (known, _) in list(manifest.files.items()):
        signature = _signature(target / name)
        if signature is None or signature.num_bytes != known.num_bytes:
            manifest.forget(name)
    for path in (*target.glob("diffusion_pytorch_model-*.safetensors"), *target.glob("*.part")):
        if path.name not in manifest.files:
            delete_file(path)
    return manifest


def _ensure_shard(
    checkpoint: Checkpoint, shard: Shard, manifest: _Manifest, device: torch.device
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


def _identity(source: ModelPart) -> str:
    """Return a digest of the source's files and their times: content fingerprints read samples only."""
    times = [dataclasses.astuple(FileSignature.of(path.stat())) for path in source.files]
    digest = hashlib.sha256(repr(times).encode())
    for piece in content_fingerprint(source):
        digest.update(piece)
    return digest.hexdigest()


def _signature(path: Path) -> FileSignature | None:
    return FileSignature.of(path.stat()) if path.is_file() else None

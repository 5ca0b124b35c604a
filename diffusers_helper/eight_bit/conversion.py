"""The transformer with weights of 8 bits: made once from its own files into a folder beside them.

`conversion.sealed` in that folder says what it was made from and what each of its files holds, and that all
of them are there; without that word, or after the transformer's own files changed, nobody uses it.
"""

import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, StopRequested
from ..files.atomic import atomic_write
from ..files.checksummed import read_metadata, write_checksummed
from ..machine_errors import check_room, machine_errors
from ..weights.checkpoint import FileSignature
from ..weights.model_files import FRAMEPACK, PARTS, ModelFiles, ModelPart, content_fingerprint, find_part
from .shards import Shard, file_digest, plan_shards, weight_map, write_shard

logger = logging.getLogger(__name__)

REPOSITORY = FRAMEPACK + "-8bit"
MANIFEST = "conversion.sealed"
CONFIG, INDEX = "config.json", "diffusion_pytorch_model.safetensors.index.json"
VERSION = 1
"""To be counted up when other files are made from the same weights."""
SPARE_BYTES = 2**20
"""Of the disk, for the small files."""

State = Literal["missing", "stale", "incomplete", "complete"]


def eight_bit_folder(root: Path) -> Path:
    """Where the weights of 8 bits belong, whatever way the others lie below `root`."""
    return root / REPOSITORY


def conversion_state(folder: Path, source: ModelPart) -> State:
    """What is in a folder, by its files' sizes and times; `convert` reads all that they hold.

    `missing`: nothing that this version made. `stale`: made from other files than `source`. `incomplete`:
    broken off, or a file was changed since.

    Raises:
        OSError: something cannot be read now.
    """
    manifest = _Manifest.read(folder)
    if manifest is None:
        return "missing"
    if manifest.source != _identity(source):
        return "stale"
    is_whole = manifest.complete and all(
        _signature(folder / name) == signature for name, (signature, _) in manifest.files.items()
    )
    return "complete" if is_whole else "incomplete"


def with_eight_bit(files: ModelFiles, root: Path) -> ModelFiles:
    """The set with the transformer of 8 bits that was made from its own.

    Raises:
        InputError: there is none, it is not whole, or it was made from other files.
    """
    folder = eight_bit_folder(root)
    try:
        if conversion_state(folder, files.transformer) != "complete":
            raise InputError("eight_bit_not_ready", path=str(folder))
        spec = dataclasses.replace(PARTS["transformer"], repository=REPOSITORY)
        return dataclasses.replace(files, transformer=find_part(root, spec))
    except OSError as error:
        path, reason = error.filename or folder, error.strerror or str(error)
        raise InputError("model_file_unreadable", path=str(path), reason=reason) from error


def convert(
    part: ModelPart, target: Path, on_progress: Callable[[int, int], None], stop: threading.Event
) -> None:
    """Make the weights of 8 bits in `target`, or go on with them.

    Files that were finished are read again and kept where they hold what they did, so that this also mends a
    folder. A weight is in memory by itself, 16 bits a number.

    Args:
        on_progress: told the bytes that are done, and those of all files.
        stop: looked at after each tensor.

    Raises:
        StopRequested: somebody asked for it; the finished files stay.
        InputError: the source changed, or holds numbers that are not finite.
        MachineError: the disk is full, cannot be read or written, or gives back something else.
    """
    with machine_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        shards = plan_shards(part.checkpoint)
        manifest = _begin(target, _identity(part), shards)
        sizes = {shard.name: shard.num_bytes for shard in shards}
        missing = sum(size for name, size in sizes.items() if name not in manifest.files)
        check_room(target, missing + SPARE_BYTES)
        progress = _Progress(on_progress, sum(shard.content_bytes for shard in shards), stop)
        for shard in shards:
            _ensure_shard(part, shard, target, manifest, progress)
        manifest.add(CONFIG, _write_small(target / CONFIG, (part.folder / CONFIG).read_bytes()))
        index: dict[str, Any] = {"metadata": {}, "weight_map": weight_map(shards)}
        manifest.add(INDEX, _write_small(target / INDEX, json.dumps(index, indent=1).encode()))
        manifest.finish()
        logger.info("weights of 8 bits in %s: %.2f GiB", target, sum(sizes.values()) / 2**30)


def remove_corrupt_shards(folder: Path) -> bool:
    """Read all that a folder holds; what does not hold what it did is taken out, and made again by `convert`.

    Returns:
        Whether there was any such file.

    Raises:
        MachineError: something cannot be read or deleted now.
    """
    with machine_errors(folder):
        manifest = _Manifest.read(folder)
        if manifest is None:
            return False
        damaged = [
            name for name, (_, digest) in manifest.files.items() if not _matches(folder / name, digest)
        ]
        for name in damaged:
            manifest.forget(name)
        return bool(damaged)


@dataclasses.dataclass
class _Manifest:
    """What a folder is said to hold: of each file, its signature and SHA-256. Kept on the disk."""

    folder: Path
    source: str
    files: dict[str, tuple[FileSignature, str]] = dataclasses.field(default_factory=dict)
    complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> "_Manifest | None":
        """None where there is none, or none that this version can read."""
        facts = read_metadata(folder / MANIFEST)
        if facts is None or facts["version"] != VERSION:
            return None
        files = {name: (FileSignature(*signature), digest) for name, signature, digest in facts["files"]}
        return cls(folder, facts["source"], files, facts["complete"])

    def add(self, name: str, digest: str) -> None:
        """A file was made, or was looked at again."""
        signature = _signature(self.folder / name)
        assert signature is not None
        if self.files.get(name) != (signature, digest):
            self.files[name] = (signature, digest)
            self._write()

    def forget(self, name: str) -> None:
        """A file does not hold what it did."""
        del self.files[name]
        self.complete = False
        self._write()
        (self.folder / name).unlink(missing_ok=True)

    def finish(self) -> None:
        if not self.complete:
            self.complete = True
            self._write()

    def _write(self) -> None:
        files = [(name, dataclasses.astuple(mark), digest) for name, (mark, digest) in self.files.items()]
        facts = {"version": VERSION, "source": self.source, "complete": self.complete, "files": files}
        write_checksummed(self.folder / MANIFEST, (), facts)


class _Progress:
    """Counts the bytes that are done, tells of them and ends the work when somebody asked for it."""

    def __init__(self, tell: Callable[[int, int], None], total: int, stop: threading.Event) -> None:
        self._tell, self._total, self._stop = tell, total, stop
        self._done = 0

    def add(self, num_bytes: int) -> None:
        self._done += num_bytes
        self._tell(self._done, self._total)
        if self._stop.is_set():
            raise StopRequested


def _begin(target: Path, source: str, shards: list[Shard]) -> _Manifest:
    """What can be kept of an earlier run, by its files' sizes; all else is taken away, to make room."""
    manifest = _Manifest.read(target)
    if manifest is None or manifest.source != source:
        (target / MANIFEST).unlink(missing_ok=True)  # first, for it is what others believe
        manifest = _Manifest(target, source)
    sizes = {shard.name: shard.num_bytes for shard in shards}
    for name in [name for name in manifest.files if name in sizes]:
        signature = _signature(target / name)
        if signature is None or signature.num_bytes != sizes[name]:
            manifest.forget(name)
    for path in (*target.glob("diffusion_pytorch_model-*.safetensors"), *target.glob("*.part")):
        if path.name not in manifest.files:
            path.unlink()
    return manifest


def _ensure_shard(
    part: ModelPart, shard: Shard, target: Path, manifest: _Manifest, progress: _Progress
) -> None:
    """Keep a finished file that holds what it did, or make it."""
    path = target / shard.name
    if shard.name in manifest.files:
        _, digest = manifest.files[shard.name]
        if _matches(path, digest):
            manifest.add(shard.name, digest)  # a copy has another time
            progress.add(shard.content_bytes)
            return
        logger.warning("%s is damaged and made again", path)
        manifest.forget(shard.name)
    manifest.add(shard.name, write_shard(part.checkpoint, shard, path, progress.add))


def _matches(path: Path, digest: str) -> bool:
    """Whether a file is there and holds what it did."""
    return path.is_file() and file_digest(path) == digest


def _write_small(path: Path, content: bytes) -> str:
    """Returns the digest."""
    digest = hashlib.sha256(content).hexdigest()
    if not _matches(path, digest):
        with atomic_write(path) as part:
            part.write_bytes(content)
    return digest


def _identity(source: ModelPart) -> str:
    """A digest of what weights of 8 bits are made from: with the files' times, for the marks are samples."""
    digest = hashlib.sha256()
    digest.update(
        repr([dataclasses.astuple(FileSignature.of(path.stat())) for path in source.files]).encode()
    )
    for mark in content_fingerprint(source):
        digest.update(mark)
    return digest.hexdigest()


def _signature(path: Path) -> FileSignature | None:
    return FileSignature.of(path.stat()) if path.is_file() else None

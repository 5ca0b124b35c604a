"""The folder of 8-bit weights: where it lies, what it holds, what it still needs, what is left of others.

`conversion.sealed` in it records the source, each file's digest and that all files are there. A folder
without it, or made from other files than those that are there now, is not used. Knows no torch.
"""

import contextlib
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from ..errors import InputError
from ..files.atomic import delete_file
from ..files.checksummed import read_metadata, write_checksummed
from ..files.disk_errors import disk_errors
from ..files.exclusive_lock import exclusive_lock
from ..weights.checkpoint import FileSignature
from ..weights.model_files import FRAMEPACK, ModelPart, content_fingerprint
from .shard_plan import Shard, plan_shards

REPOSITORY = FRAMEPACK + "-8bit"
MANIFEST, LOCK = "conversion.sealed", "lock"
CONFIG, INDEX = "config.json", "diffusion_pytorch_model.safetensors.index.json"
VERSION = 2
"""The version of the files; raised when the same weights give other files."""
SPARE_BYTES = 2**20
"""Bytes of disk space for the small files."""
_PART = re.compile(r"diffusion_pytorch_model-\d{5}-of-\d{5}\.safetensors\.part")
"""The name of a file that a killed conversion has left."""


def eight_bit_folder(root: Path) -> Path:
    """Return the folder of the 8-bit weights below `root`."""
    return root / REPOSITORY


def is_converted(folder: Path, source: ModelPart) -> bool:
    """Return whether a folder holds all files made from `source`, by sizes and times; `convert` reads them.

    Raises:
        OSError: something cannot be read now.
    """
    manifest = Manifest.read(folder)
    return (
        manifest is not None
        and manifest.complete
        and manifest.source == identity_of(source)
        and all(signature_of(folder / name) == signature for name, (signature, _) in manifest.files.items())
    )


def choose_root(source: ModelPart, roots: Sequence[Path]) -> Path:
    """Choose the root of a transformer's 8-bit weights: the first that has all of them, else the first that
    can be written, else the last. Raises OSError."""
    for root in roots:
        if is_converted(eight_bit_folder(root), source):
            return root
    return next((root for root in roots if _can_write(root)), roots[-1])


def missing_bytes(shards: Sequence[Shard], finished: Collection[str]) -> int:
    """Return the bytes that a conversion still needs on the disk, with the shards of these names finished."""
    return sum(shard.content_bytes for shard in shards if shard.name not in finished) + SPARE_BYTES


def room_for_eight_bit(source: ModelPart, roots: Sequence[Path]) -> tuple[Path, int]:
    """Return the folder that a transformer's 8-bit weights have, or get, and the bytes that it still needs.

    Those of a finished folder are 0. Raises OSError.
    """
    folder = eight_bit_folder(choose_root(source, roots))
    if is_converted(folder, source):
        return folder, 0
    manifest = Manifest.read(folder)
    finished = manifest.files if manifest is not None and manifest.source == identity_of(source) else ()
    return folder, missing_bytes(plan_shards(source.checkpoint), finished)


@dataclasses.dataclass(frozen=True)
class OutdatedWeights:
    """The 8-bit weights that an earlier version made: nothing uses them. `num_bytes` are on the disk."""

    folder: Path
    num_bytes: int


def find_outdated(root: Path) -> OutdatedWeights | None:
    """Find the 8-bit weights of an earlier version below `root`. Raises OSError."""
    files = _outdated_files(folder := eight_bit_folder(root))
    return OutdatedWeights(folder, sum(path.stat().st_size for path in files)) if files else None


def delete_outdated(folder: Path) -> None:
    """Delete what an earlier version's conversion has written to a folder, and nothing else.

    Raises:
        InputError: a conversion is running there.
        MachineError: a file cannot be deleted; the others are gone, and the rest is found again.
    """
    with exclusive_lock(folder / LOCK, InputError("eight_bit_busy", path=str(folder))), disk_errors(folder):
        files = _outdated_files(folder)
        for path in files:
            delete_file(path)
    if files:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _outdated_files(folder: Path) -> list[Path]:
    """Return the files that an earlier version's manifest records, with their sizes, and at last itself."""
    facts = read_metadata(folder / MANIFEST)
    if facts is None or facts["version"] >= VERSION:
        return []
    recorded = {name: FileSignature(*signature).num_bytes for name, signature, _ in facts["files"]}
    ours = [
        path
        for path in folder.iterdir()
        if path.is_file() and (path.stat().st_size == recorded.get(path.name) or _PART.fullmatch(path.name))
    ]
    return [*ours, folder / MANIFEST]


def _can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, or in the one in which it will be made."""
    folder = folder.absolute()
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    try:
        with tempfile.TemporaryFile(dir=there):
            return there is not None
    except OSError:
        return False


@dataclasses.dataclass
class Manifest:
    """The record of a folder on disk: each file's signature and SHA-256."""

    folder: Path
    source: str
    files: dict[str, tuple[FileSignature, str]] = dataclasses.field(default_factory=dict)
    complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Return a folder's manifest, None if there is none of this version."""
        facts = read_metadata(folder / MANIFEST)
        if facts is None or facts["version"] != VERSION:
            return None
        files = {name: (FileSignature(*signature), digest) for name, signature, digest in facts["files"]}
        return cls(folder, facts["source"], files, facts["complete"])

    def add(self, name: str, digest: str) -> None:
        """Record a file that was written or verified."""
        signature = signature_of(self.folder / name)
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


def identity_of(source: ModelPart) -> str:
    """Return a digest of the source's files and their times: content fingerprints read samples only."""
    times = [dataclasses.astuple(FileSignature.of(path.stat())) for path in source.files]
    digest = hashlib.sha256(repr(times).encode())
    for piece in content_fingerprint(source):
        digest.update(piece)
    return digest.hexdigest()


def signature_of(path: Path) -> FileSignature | None:
    return FileSignature.of(path.stat()) if path.is_file() else None

"""Which files of the models' repositories are needed, and no others. Knows no disk and no network.

The same weights may lie there in several formats (`.bin`, fp16 variants, one file beside its shards). Of
each part only that is taken which `diffusers_helper.weights.model_files` finds again.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.checkpoint import SINGLE_FILES
from diffusers_helper.weights.model_files import PARTS, PartSpec

REPOSITORIES = tuple(dict.fromkeys(spec.repository for spec in PARTS.values()))
CONFIG = "config.json"
INDICES = tuple(f"{name}.index.json" for name in SINGLE_FILES)
PROCESSOR_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
)
"""What tokenizers and image processors consist of; they need not have all."""
_SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: in the repository, with `/`.
        size: in bytes.
        sha256: of a large file's content, in hexadecimal; None for a small one.
        blob: git's own name of a small file's content: SHA-1 with a header in front. None: not told.
    """

    repository: str
    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None

    @property
    def checksum(self) -> str | None:
        """What its content is known by; None where the hub told nothing."""
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Listing:
    """A repository as it is at one commit: later changes of it don't mix with this."""

    repository: str
    commit: str
    files: tuple[RemoteFile, ...]


def files_of(spec: PartSpec, listing: Listing) -> tuple[RemoteFile, ...]:
    """The files of one part, the weights last.

    Raises:
        MachineError: the repository has no such part any more.
    """
    there = {file.path: file for file in listing.files}
    weights = _choose_weights({path.name for path in _children(there, spec.folder)})
    paths = [*_processor_paths(spec, there), *(_join(spec.folder, name) for name in (CONFIG, *weights))]
    for path in paths:
        if path not in there:
            raise MachineError("download_repository_changed", repository=spec.repository, file=path)
    return tuple(there[path] for path in paths)


def may_be_part_of(spec: PartSpec, path: PurePosixPath) -> bool:
    """Whether a file of that path in a repository's folder may be one of this part's."""
    folder = path.parent.as_posix()
    if folder == (spec.folder or "."):
        return path.name in (CONFIG, *INDICES, *SINGLE_FILES) or _SHARD.fullmatch(path.name) is not None
    return folder == spec.processor and path.name in PROCESSOR_FILES


def _processor_paths(spec: PartSpec, there: dict[str, RemoteFile]) -> list[str]:
    """All of the tokenizer's or image processor's files, those that it cannot do without among them."""
    if spec.processor is None:
        return []
    names = {path.name for path in _children(there, spec.processor)}
    needed: tuple[str, ...] = ()
    if not any(names.issuperset(choice) for choice in spec.processor_files):
        needed = spec.processor_files[0]
    chosen = dict.fromkeys([*(name for name in PROCESSOR_FILES if name in names), *needed])
    return [_join(spec.processor, name) for name in chosen]


def _choose_weights(names: set[str]) -> list[str]:
    """An index with its shards, else one file: what the finder looks for, in its order."""
    for index in INDICES:
        shards = _shards(index.partition(".")[0], names)
        if index in names and shards:
            return [index, *shards]
    return [next((name for name in SINGLE_FILES if name in names), SINGLE_FILES[0])]


def _shards(stem: str, names: set[str]) -> list[str]:
    """A whole row of shards: `stem-00001-of-00003` and so on; an upload may have left others of before."""
    rows: dict[str, list[str]] = {}
    for name in sorted(names):
        found = _SHARD.fullmatch(name)
        if found and found[1] == stem:
            rows.setdefault(found[2], []).append(name)
    return next((row for total, row in rows.items() if len(row) == int(total)), [])


def _children(there: dict[str, RemoteFile], folder: str) -> list[PurePosixPath]:
    paths = (PurePosixPath(path) for path in there)
    return [path for path in paths if path.parent.as_posix() == (folder or ".")]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name

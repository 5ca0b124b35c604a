"""The choice of the files that are needed of the models' repositories.

The same weights may lie there in several formats (`.bin`, fp16 variants, one file beside its shards). Of each
part only those are taken which `diffusers_helper.weights.model_files` finds again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from diffusers_helper.errors import MachineError
from diffusers_helper.public import SINGLE_FILES, PartSpec

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
"""The files of tokenizers and image processors; none has all of them."""
_SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository as it was listed at a commit, so that later changes don't mix with this.

    `checksum` is hexadecimal: SHA-256 of a large file, git's SHA-1 of a small one; None if the hub gave none.
    """

    repository: str
    path: str
    size: int
    commit: str = "main"
    checksum: str | None = None

    @property
    def name(self) -> str:
        """The name in messages, and the path below a folder of models."""
        return f"{self.repository}/{self.path}"


def files_of(spec: PartSpec, listing: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Choose the files of one part from all of its repository; the weights come last.

    Raises:
        MachineError: the repository has no such part any more.
    """
    by_path = {PurePosixPath(file.path): file for file in listing}
    names = {path.name for path in by_path if path.parent == PurePosixPath(spec.folder)}
    paths = [PurePosixPath(spec.folder, name) for name in (CONFIG, *_choose_weights(names))]
    if spec.processor is not None:
        found = [name for name in PROCESSOR_FILES if PurePosixPath(spec.processor, name) in by_path]
        is_enough = any(set(found).issuperset(choice) for choice in spec.processor_files)
        needed = () if is_enough else spec.processor_files[0]
        paths = [PurePosixPath(spec.processor, name) for name in dict.fromkeys([*found, *needed])] + paths
    for path in paths:
        if path not in by_path:
            raise MachineError("download_repository_changed", repository=spec.repository, file=str(path))
    return [by_path[path] for path in paths]


def may_be_part_of(spec: PartSpec, path: PurePosixPath) -> bool:
    """Return whether a file with that path in the repository's folder may belong to this part."""
    if path.parent == PurePosixPath(spec.folder):
        return path.name in (CONFIG, *INDICES, *SINGLE_FILES) or _SHARD.fullmatch(path.name) is not None
    return path.parent.as_posix() == spec.processor and path.name in PROCESSOR_FILES


def _choose_weights(names: set[str]) -> list[str]:
    """Choose as the finder does: an index with its shards, else a single file."""
    for index in INDICES:
        series: dict[str, list[str]] = {}  # one upload after another may have left its shards
        for found in filter(None, map(_SHARD.fullmatch, sorted(names))):
            if found[1] == index.partition(".")[0]:
                series.setdefault(found[2], []).append(found[0])
        complete = [shards for total, shards in series.items() if len(shards) == int(total)]
        if index in names and complete:
            return [index, *complete[0]]
    return [next((name for name in SINGLE_FILES if name in names), SINGLE_FILES[0])]

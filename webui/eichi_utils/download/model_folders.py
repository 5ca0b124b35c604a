"""The folders in which models may lie on this computer, and what is there of each part of the set.

The hub is not asked. A part that is complete in any folder is used where it is: the five parts need not come
from one folder.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from diffusers_helper.errors import InputError
from diffusers_helper.public import (
    PARTS,
    SINGLE_FILES,
    ModelFiles,
    ModelPart,
    PartSpec,
    check_fit,
    find_part,
    repository_folders,
)

logger = logging.getLogger(__name__)

PART_ENDING = ".part"
"""The ending of files that are being downloaded: `model.safetensors.0123456789ab.part`."""
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
SHARD = re.compile(r"(model|diffusion_pytorch_model)-\d{5}-of-(\d{5})\.safetensors")
CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")


@dataclass(frozen=True)
class ModelFolders:
    """The folders to search, in this order; each a Hugging Face cache or `ORG/NAME/...`, or both.

    Attributes:
        given: named by the user; None where nobody named one.
        own: the app's.
        caches: the user's own caches of Hugging Face, only ever read.
    """

    given: Path | None
    own: Path
    caches: tuple[Path, ...] = ()

    @classmethod
    def of_user(cls, given: Path | None, own: Path) -> "ModelFolders":
        """Add the folders in which Hugging Face's own library keeps downloads for the user who runs this."""
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        paths = [*map(os.environ.get, CACHE_VARIABLES), f"{base}/huggingface"]
        return cls(given, own, tuple(Path(path).expanduser() for path in paths if path))

    @property
    def target(self) -> Path:
        """The folder to which a download goes."""
        return self.given if self.given is not None else self.own

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders to search, each once."""
        found: dict[str, Path] = {}
        for path in (self.target, self.own, *self.caches):
            found.setdefault(os.path.realpath(path), path)
        return tuple(found.values())

    def of_repository(self, repository: str) -> Iterator[Path]:
        """Yield all folders that may hold a repository."""
        for root in self.roots:
            with contextlib.suppress(OSError):
                yield from repository_folders(root, repository)


PartState = Literal["complete", "partly", "missing"]


@dataclass(frozen=True)
class PartView:
    """The state of one of `PARTS` on the disk. `folder` has its config and weights, where it is complete;
    `num_bytes` of an incomplete one are those in the folder that has most of it."""

    name: str
    state: PartState
    folder: Path | None
    num_bytes: int


@dataclass(frozen=True)
class Inventory:
    """The parts of the set at one moment."""

    parts: tuple[PartView, ...]

    @property
    def state(self) -> PartState:
        """The state of the whole set."""
        states = {part.state for part in self.parts}
        return "partly" if len(states) > 1 else next(iter(states))

    @property
    def num_bytes(self) -> int:
        """The bytes of all parts on the disk."""
        return sum(part.num_bytes for part in self.parts)


def take_inventory(folders: ModelFolders) -> Inventory:
    """Return which parts are there: complete if all files of a part are there, whole, and fit together.

    Takes milliseconds: only the headers of weights are read. A folder that cannot be read holds nothing.
    """
    return Inventory(tuple(_view_part(name, spec, folders) for name, spec in PARTS.items()))


def find_models_in(folders: ModelFolders) -> ModelFiles:
    """Find the complete set, each part in the first folder that has it as a whole.

    Raises:
        InputError: the first thing that is missing, cut short or foreign.
    """
    files = ModelFiles(**{name: _find(folders, spec) for name, spec in PARTS.items()})
    check_fit(files)
    return files


def file_size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else None
    return None


def _view_part(name: str, spec: PartSpec, folders: ModelFolders) -> PartView:
    try:
        part = _find(folders, spec)
    except InputError:
        found = (_bytes_below(folder, spec) for folder in folders.of_repository(spec.repository))
        num_bytes = max(found, default=0)
        return PartView(name, "partly" if num_bytes else "missing", None, num_bytes)
    files = {*part.files, *(part.folder / index for index in INDICES)}
    return PartView(name, "complete", part.folder, sum(file_size(path) or 0 for path in files))


def _find(folders: ModelFolders, spec: PartSpec) -> ModelPart:
    """Find the first complete part; raises the InputError of the first incomplete one."""
    problem = InputError("model_missing", repository=spec.repository, path=str(folders.target))
    for root in folders.roots:
        try:
            return find_part(root, spec)
        except InputError as error:
            if problem.code == "model_missing" != error.code:
                problem = error
        except OSError as error:
            logger.debug("%s cannot be read: %s", root, error)
    raise problem


def _bytes_below(repository: Path, spec: PartSpec) -> int:
    """Bytes of this part's files, complete or on their way, in one folder of its repository."""
    total = 0
    for name in {spec.folder, spec.processor or spec.folder}:
        with contextlib.suppress(OSError):
            for path in (repository / name).iterdir():
                is_partial = path.suffix == PART_ENDING  # which follows a checksum
                entry = path.with_suffix("").stem if is_partial else path.name
                total += (file_size(path) or 0) if may_be_part_of(spec, PurePosixPath(name, entry)) else 0
    return total


def may_be_part_of(spec: PartSpec, path: PurePosixPath) -> bool:
    """Return whether a file with that path in the repository's folder may belong to this part."""
    if path.parent == PurePosixPath(spec.folder):
        return path.name in (CONFIG, *INDICES, *SINGLE_FILES) or SHARD.fullmatch(path.name) is not None
    return path.parent.as_posix() == spec.processor and path.name in PROCESSOR_FILES

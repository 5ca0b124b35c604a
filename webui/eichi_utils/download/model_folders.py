"""Where models may lie on this computer: which parts are there as a whole, which by half, which not at all.

Looks at folders, the hub is not asked. What is complete in any place is used where it is: the five parts need
not come from one place.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from diffusers_helper.errors import InputError
from diffusers_helper.weights.model_files import (
    PARTS,
    ModelFiles,
    ModelPart,
    PartSpec,
    check_fit,
    find_part,
    repository_folders,
)

from .needed_files import INDICES, RemoteFile, may_be_part_of

logger = logging.getLogger(__name__)

PART_ENDING = ".part"
"""Of files on their way: `model.safetensors.0123456789ab.part`."""
CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")


@dataclass(frozen=True)
class ModelFolders:
    """The folders to look at, in this order; each a Hugging Face cache or `ORG/NAME/...`, or both.

    Attributes:
        given: by hand; None where nobody named one.
        own: the app's.
        caches: the user's own caches of Hugging Face, only ever read.
    """

    given: Path | None
    own: Path
    caches: tuple[Path, ...] = ()

    @classmethod
    def of_user(cls, given: Path | None, own: Path) -> "ModelFolders":
        """With the caches of whoever runs this."""
        return cls(given, own, user_caches(os.environ, Path.home()))

    @property
    def target(self) -> Path:
        """Where a download goes."""
        return self.given if self.given is not None else self.own

    @property
    def roots(self) -> tuple[Path, ...]:
        """All of them, each once."""
        given = () if self.given is None else (self.given,)
        found: dict[str, Path] = {}
        for path in (*given, self.own, *self.caches):
            found.setdefault(os.path.realpath(path), path)
        return tuple(found.values())


PartState = Literal["complete", "partly", "missing"]


@dataclass(frozen=True)
class PartView:
    """What is there of one part.

    Attributes:
        name: as in `diffusers_helper.weights.model_files.PARTS`.
        root: the place that has it, or most of it; None where no place has anything.
        folder: of its config and weights, where it is complete.
        num_bytes: that are there.
    """

    name: str
    repository: str
    state: PartState
    root: Path | None
    folder: Path | None
    num_bytes: int


@dataclass(frozen=True)
class Inventory:
    """All parts as they are at one moment."""

    parts: tuple[PartView, ...]

    @property
    def state(self) -> PartState:
        """Of the whole set."""
        states = {part.state for part in self.parts}
        return "partly" if len(states) > 1 else next(iter(states))

    @property
    def num_bytes(self) -> int:
        """That are there of all parts."""
        return sum(part.num_bytes for part in self.parts)


def take_inventory(places: ModelFolders) -> Inventory:
    """See what is there. A part is complete if its files are all there, fit together and are whole.

    Takes milliseconds: only the heads of weights are read. A folder that cannot be read holds nothing.
    """
    return Inventory(tuple(_look_at(name, spec, places) for name, spec in PARTS.items()))


def find_models_in(places: ModelFolders) -> ModelFiles:
    """The complete set, each part from the first place that has it as a whole.

    Raises:
        InputError: what is missing, cut short or foreign.
    """
    files = ModelFiles(**{name: _find_in(places, spec) for name, spec in PARTS.items()})
    check_fit(files)
    return files


def local_copies(places: ModelFolders, file: RemoteFile) -> Iterator[Path]:
    """Files that are as long as this one and stand where it would, in any place."""
    for root in places.roots:
        for folder in _folders(root, file.repository):
            path = folder / file.path
            if _size(path) == file.size:
                yield path


def user_caches(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """The folders in which Hugging Face's own library keeps downloads for this user."""
    found = [Path(environment[name]).expanduser() for name in CACHE_VARIABLES if environment.get(name)]
    base = environment.get("XDG_CACHE_HOME")
    found.append((Path(base).expanduser() if base else home / ".cache") / "huggingface")
    return tuple(dict.fromkeys(found))


def _look_at(name: str, spec: PartSpec, places: ModelFolders) -> PartView:
    for root in places.roots:
        part = _complete_part(root, spec)
        if part is not None:
            files = {*part.files, *(part.folder / name for name in INDICES)}
            num_bytes = sum(_size(path) or 0 for path in files)
            return PartView(name, spec.repository, "complete", root, part.folder, num_bytes)
    most, root = max(((_num_bytes(root, spec), root) for root in places.roots), key=lambda found: found[0])
    if most == 0:
        return PartView(name, spec.repository, "missing", None, None, 0)
    return PartView(name, spec.repository, "partly", root, None, most)


def _complete_part(root: Path, spec: PartSpec) -> ModelPart | None:
    try:
        return find_part(root, spec)
    except (InputError, OSError) as error:
        logger.debug("%s in %s: %s", spec.folder or spec.repository, root, error)
        return None


def _find_in(places: ModelFolders, spec: PartSpec) -> ModelPart:
    """The first complete one, else what is wrong with the first that is there."""
    problem: InputError | None = None
    for root in places.roots:
        try:
            return find_part(root, spec)
        except InputError as error:
            if problem is None or problem.code == "model_missing":
                problem = error
        except OSError as error:
            logger.debug("%s cannot be read: %s", root, error)
    if problem is None or problem.code == "model_missing":
        raise InputError("model_missing", repository=spec.repository, path=str(places.target))
    raise problem


def _num_bytes(root: Path, spec: PartSpec) -> int:
    """Bytes of this part below a root, in that of its folders which has the most."""
    return max((_bytes_below(folder, spec) for folder in _folders(root, spec.repository)), default=0)


def _bytes_below(repository: Path, spec: PartSpec) -> int:
    total = 0
    for name in {spec.folder, spec.processor or spec.folder}:
        try:
            entries = [path.name for path in (repository / name).iterdir()]
        except OSError:
            continue
        for entry in entries:
            path = PurePosixPath(name, _without_part_ending(entry))
            total += (_size(repository / name / entry) or 0) if may_be_part_of(spec, path) else 0
    return total


def _without_part_ending(name: str) -> str:
    return name.removesuffix(PART_ENDING).rpartition(".")[0] if name.endswith(PART_ENDING) else name


def _folders(root: Path, repository: str) -> list[Path]:
    try:
        return repository_folders(root, repository)
    except OSError:
        return []


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None

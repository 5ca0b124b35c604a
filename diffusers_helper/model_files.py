"""Where the models lie: finding each part below one folder and checking its files, without loading any.

Accepts plain folders `ORG/NAME/...` and a Hugging Face cache (`models--ORG--NAME/snapshots/...`, also
below `hub/`), so that a download made by any FramePack is used as it is. Touches no network.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint, read_json
from .errors import InputError

HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
FLUX_REDUX = "lllyasviel/flux_redux_bfl"
FRAMEPACK = "lllyasviel/FramePackI2V_HY"


@dataclass(frozen=True)
class PartSpec:
    """One model of the set: where it belongs and which classes its config may name."""

    repository: str
    folder: str
    classes: tuple[str, ...]
    processor: str | None = None
    """The folder of its tokenizer or image processor, and sets of files of which it needs one."""
    processor_files: tuple[tuple[str, ...], ...] = ()


_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
_BPE_TOKENIZER = ("tokenizer_config.json", "vocab.json", "merges.txt")

PARTS = {
    "text_encoder": PartSpec(HUNYUAN, "text_encoder", ("LlamaModel", "LlamaForCausalLM"), "tokenizer",
                             (_TOKENIZER,)),
    "text_encoder_2": PartSpec(HUNYUAN, "text_encoder_2", ("CLIPTextModel",), "tokenizer_2",
                               (_BPE_TOKENIZER, _TOKENIZER)),
    "vae": PartSpec(HUNYUAN, "vae", ("AutoencoderKLHunyuanVideo",)),
    "image_encoder": PartSpec(FLUX_REDUX, "image_encoder", ("SiglipVisionModel",), "feature_extractor",
                              (("preprocessor_config.json",),)),
    "transformer": PartSpec(FRAMEPACK, "", ("HunyuanVideoTransformer3DModelPacked",
                                            "HunyuanVideoFramepackTransformer3DModel")),
}  # fmt: skip


@dataclass(frozen=True)
class ModelPart:
    """The files of one model, checked: its config, its weights, its tokenizer's or processor's folder."""

    config: dict[str, Any]
    checkpoint: Checkpoint
    processor: Path | None

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @cached_property
    def files(self) -> list[Path]:
        """All files that decide what this part computes."""
        found = {tensor.path for tensor in self.checkpoint.tensors.values()}
        found.add(self.folder / "config.json")
        if self.processor is not None:
            found |= {path for path in self.processor.iterdir() if path.is_file()}
        return sorted(found)


@dataclass(frozen=True)
class ModelFiles:
    """The complete set."""

    text_encoder: ModelPart
    text_encoder_2: ModelPart
    vae: ModelPart
    image_encoder: ModelPart
    transformer: ModelPart


def find_models(root: Path) -> ModelFiles:
    """Find and check all parts below `root`.

    Raises:
        InputError: the first thing that is missing, cut short or foreign.
    """
    try:
        if not root.is_dir():
            raise InputError("models_folder_missing", path=str(root))
        files = ModelFiles(**{name: _find_part(root, spec) for name, spec in PARTS.items()})
    except OSError as error:  # a folder that may not be entered, a name too long for the file system
        path, reason = error.filename or root, error.strerror or str(error)
        raise InputError("model_file_unreadable", path=str(path), reason=reason) from error
    _check_fit(files)
    return files


def _find_part(root: Path, spec: PartSpec) -> ModelPart:
    candidates = _repository_folders(root, spec.repository)
    if not candidates:
        raise InputError("model_missing", repository=spec.repository, path=str(root))
    problem: InputError | None = None
    for repository in candidates:
        try:
            return _check_part(repository, spec)
        except InputError as error:
            problem = problem or error  # a cache may hold an older snapshot that is complete
    assert problem is not None
    raise problem


def _repository_folders(root: Path, repository: str) -> list[Path]:
    """Folders that may hold a repository, the likeliest first."""
    found = [root / repository]
    for cache in (root, root / "hub"):
        base = cache / ("models--" + repository.replace("/", "--"))
        snapshots = [path for path in (base / "snapshots").glob("*") if path.is_dir()]
        snapshots.sort(key=_modified, reverse=True)
        try:
            main = (base / "refs" / "main").read_text("utf-8").strip()
        except (OSError, ValueError):
            main = ""
        found += sorted(snapshots, key=lambda snapshot: snapshot.name != main)
    return [folder for folder in found if folder.is_dir()]


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _check_part(repository: Path, spec: PartSpec) -> ModelPart:
    folder = repository / spec.folder if spec.folder else repository
    config_path = folder / "config.json"
    config = read_json(config_path)
    names = [config.get("_class_name"), *_as_list(config.get("architectures"))]
    if not any(name in spec.classes for name in names):
        found = next((str(name) for name in names if name), "?")
        raise InputError("model_foreign", path=str(config_path), found=found, expected=spec.classes[0])
    processor = repository / spec.processor if spec.processor else None
    if processor is not None:
        _check_processor(processor, spec.processor_files)
    return ModelPart(config, Checkpoint.open(folder), processor)


def _check_processor(folder: Path, alternatives: tuple[tuple[str, ...], ...]) -> None:
    """One of the sets of files must be there as a whole; else names what lacks of the most complete one."""
    missing = [[name for name in names if not (folder / name).is_file()] for names in alternatives]
    fewest = min(missing, key=len)
    if fewest:
        raise InputError("model_file_missing", path=str(folder / fewest[0]))


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else []


def _check_fit(files: ModelFiles) -> None:
    """Refuse parts that cannot work together: each width that one hands to another must agree."""
    transformer = files.transformer
    pairs = [
        ("text_embed_dim", files.text_encoder, "hidden_size"),
        ("pooled_projection_dim", files.text_encoder_2, "hidden_size"),
        ("image_proj_dim", files.image_encoder, "hidden_size"),
        ("in_channels", files.vae, "latent_channels"),
    ]
    for own_key, other, other_key in pairs:
        own, theirs = transformer.config.get(own_key), other.config.get(other_key)
        if own is not None and theirs is not None and own != theirs:
            raise InputError(
                "models_do_not_fit",
                path=str(other.folder / "config.json"),
                key=other_key,
                value=theirs,
                expected=own,
            )

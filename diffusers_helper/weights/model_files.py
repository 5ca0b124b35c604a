"""The search for the models' files below one folder, and their check, without loading any.

Accepts plain folders `ORG/NAME/...` and a Hugging Face cache (`models--ORG--NAME/snapshots/...`, also
below `hub/`), so that a download of any FramePack can be used as it is. Knows no network.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checkpoint import Checkpoint, read_json, unreadable

HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
FLUX_REDUX = "lllyasviel/flux_redux_bfl"
FRAMEPACK = "lllyasviel/FramePackI2V_HY"
SIGLIP_SIDE = 224
"""Pixels along a side of SigLIP's square pictures where its config does not say."""
FIXED = {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4} | {
    f"{way}_block_types": [f"HunyuanVideo{way.title()}Block3D"] * 4 for way in ("down", "up")
}
"""Settings of the VAE on which our own code relies, and which no weight's shape shows."""
MAX_SHOWN = 40
"""The most characters of a wrong setting that a message shows."""
SAMPLES, SAMPLE_BYTES = 16, 64 * 2**10
"""The number and size of the pieces of a file by which it is recognized."""


@dataclass(frozen=True)
class PartSpec:
    """The repository of one model, and the signs that its files are the right ones.

    Attributes:
        folder: its folder in the repository, empty for the repository itself.
        classes: class names, of which its config must hold one.
        counts: keys of its config that count layers, with the prefix of a layer's number in tensors' names.
        processor: the repository's folder of its tokenizer or image processor.
        processor_files: sets of files, of which that folder must hold one.
    """

    repository: str
    folder: str
    classes: tuple[str, ...]
    counts: Mapping[str, str] = field(default_factory=lambda: {"num_hidden_layers": "layers"})
    processor: str | None = None
    processor_files: tuple[tuple[str, ...], ...] = ()


_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
_BPE_TOKENIZER = ("tokenizer_config.json", "vocab.json", "merges.txt")

PARTS = {
    "text_encoder": PartSpec(
        HUNYUAN,
        "text_encoder",
        classes=("LlamaModel", "LlamaForCausalLM"),
        processor="tokenizer",
        processor_files=(_TOKENIZER,),
    ),
    "text_encoder_2": PartSpec(
        HUNYUAN,
        "text_encoder_2",
        classes=("CLIPTextModel",),
        processor="tokenizer_2",
        processor_files=(_BPE_TOKENIZER, _TOKENIZER),
    ),
    "vae": PartSpec(
        HUNYUAN,
        "vae",
        classes=("AutoencoderKLHunyuanVideo",),
        counts={"layers_per_block": "encoder.down_blocks.0.resnets"},
    ),
    "image_encoder": PartSpec(
        FLUX_REDUX,
        "image_encoder",
        classes=("SiglipVisionModel",),
        processor="feature_extractor",
        processor_files=(("preprocessor_config.json",),),
    ),
    "transformer": PartSpec(
        FRAMEPACK,
        "",
        classes=("HunyuanVideoTransformer3DModelPacked", "HunyuanVideoFramepackTransformer3DModel"),
        counts={
            "num_layers": "transformer_blocks",
            "num_single_layers": "single_transformer_blocks",
            "num_refiner_layers": "refiner_blocks",
        },
    ),
}


@dataclass(frozen=True)
class ModelPart:
    """The checked files of one model: config, weights, and the folder of its tokenizer or image processor."""

    config: dict[str, Any]
    checkpoint: Checkpoint
    processor: Path | None

    @property
    def folder(self) -> Path:
        return self.checkpoint.folder

    @cached_property
    def files(self) -> list[Path]:
        """The files that decide what this model computes, sorted."""
        found = {tensor.path for tensor in self.checkpoint.tensors.values()}
        found.add(self.folder / "config.json")
        if self.processor is not None:
            found |= {path for path in self.processor.iterdir() if path.is_file()}
        return sorted(found)


@dataclass(frozen=True)
class ModelFiles:
    """The files of all models that a video needs."""

    text_encoder: ModelPart
    text_encoder_2: ModelPart
    vae: ModelPart
    image_encoder: ModelPart
    transformer: ModelPart


def content_fingerprint(part: ModelPart, with_times: bool = False) -> Iterator[bytes]:
    """Yield names, sizes and samples of a model's files: a copy has the same, except `with_times`."""
    for path in part.files:
        stat = path.stat()
        time = f"{stat.st_mtime_ns} " if with_times else ""
        yield f"{path.name} {stat.st_size} {time}".encode()
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(stat.st_size * number // SAMPLES)
                yield file.read(SAMPLE_BYTES)


def find_models(root: Path) -> ModelFiles:
    """Find and check all models below `root`.

    Raises:
        InputError: naming the first file that is missing, cut short or foreign.
    """
    try:
        if not root.is_dir():
            raise InputError("models_folder_missing", path=str(root))
        files = ModelFiles(**{name: find_part(root, spec) for name, spec in PARTS.items()})
    except OSError as error:  # a folder that may not be entered, a name too long for the file system
        raise unreadable(root, error) from error
    check_fit(files)
    return files


def find_part(
    root: Path, spec: PartSpec, readable_folders: Callable[[str], Iterable[Path]] | None = None
) -> ModelPart:
    """Find and check one model below `root`. Raises InputError like `find_models`.

    Args:
        readable_folders: lists the folders that may hold a repository, instead of those below `root`; what
            cannot be read there is skipped.
    """
    problems = []
    for repository in (readable_folders or partial(repository_folders, root))(spec.repository):
        try:
            return _check_part(repository, spec)
        except InputError as error:  # a cache may hold an older snapshot that is complete
            problems.append(error)
        except OSError:
            if readable_folders is None:
                raise
    missing = InputError("model_missing", repository=spec.repository, path=str(root))
    raise problems[0] if problems else missing


def repository_folders(root: Path, repository: str) -> list[Path]:
    """The existing folders below `root` that may hold a repository, the likeliest first."""
    found = [root / repository]
    for cache in (root, root / "hub"):
        base = cache / ("models--" + repository.replace("/", "--"))
        snapshots = [path for path in (base / "snapshots").glob("*") if path.is_dir()]
        snapshots.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        try:
            main = (base / "refs" / "main").read_text("utf-8").strip()
        except (OSError, ValueError):
            main = ""
        found += sorted(snapshots, key=lambda snapshot: snapshot.name != main)
    return [folder for folder in found if folder.is_dir()]


def _check_part(repository: Path, spec: PartSpec) -> ModelPart:
    folder = repository / spec.folder if spec.folder else repository
    config_path = folder / "config.json"
    config = read_json(config_path)
    architectures = config.get("architectures")
    names = [config.get("_class_name"), *(architectures if isinstance(architectures, list) else ())]
    if not any(name in spec.classes for name in names):
        found = next((str(name) for name in names if name), "?")
        raise InputError("model_foreign", path=str(config_path), found=found, expected=spec.classes[0])
    processor = repository / spec.processor if spec.processor else None
    if processor is not None:
        sets = ([processor / name for name in names] for names in spec.processor_files)
        fewest = min(([path for path in paths if not path.is_file()] for paths in sets), key=len)
        if fewest:
            raise InputError("model_file_missing", path=str(fewest[0]))
    checkpoint = Checkpoint.open(folder)
    _check_config(config_path, config, spec, checkpoint)
    return ModelPart(config, checkpoint, processor)


def _check_config(path: Path, config: dict[str, Any], spec: PartSpec, checkpoint: Checkpoint) -> None:
    """Reject settings that nothing else would: too few layers (a wrong result) or a billion (no memory)."""
    for key, prefix in spec.counts.items():
        pattern = re.compile(rf"(?:.*\.)?{re.escape(prefix)}\.(\d+)\..*")
        numbers = {found[1] for name in checkpoint.tensors if (found := pattern.fullmatch(name))}
        if key in config and config[key] != len(numbers):
            raise _wrong_setting(path, key, config[key], len(numbers))
    for key in FIXED.keys() & config.keys():
        if config[key] != FIXED[key]:
            raise _wrong_setting(path, key, config[key], json.dumps(FIXED[key]))
    for key, size in {
        "norm_num_groups": None,
        "scaling_factor": None,
        "rope_theta": None,
        "rope_axes_dim": 3,
    }.items():
        if key in config and not _is_setting(config[key], size):
            raise _wrong_setting(path, key, config[key], "> 0")


def _is_setting(value: object, size: int | None) -> bool:
    """Return whether the value is a number above 0 or, with a size, a list of as many."""
    if size is not None:
        return isinstance(value, list) and len(value) == size and all(_is_setting(v, None) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _wrong_setting(path: Path, key: str, value: object, expected: object) -> InputError:
    text = json.dumps(value)
    text = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return InputError("model_config_value", path=str(path), field=key, value=text, expected=expected)


def check_fit(files: ModelFiles) -> None:
    """Raise InputError for models that cannot work together: the width of each output must fit its input."""
    encoder, transformer = files.image_encoder, files.transformer
    assert encoder.processor is not None
    path = encoder.processor / "preprocessor_config.json"
    side = encoder.config.get("image_size", SIGLIP_SIDE)
    size, fitting = read_json(path).get("size"), {"height": side, "width": side}
    if not isinstance(size, dict) or size | fitting != size:
        raise _wrong_setting(path, "size", size, json.dumps(fitting))
    pairs = [
        ("text_embed_dim", files.text_encoder, "hidden_size"),
        ("pooled_projection_dim", files.text_encoder_2, "hidden_size"),
        ("image_proj_dim", encoder, "hidden_size"),
        ("in_channels", files.vae, "latent_channels"),
    ]
    for key, other, other_key in pairs:
        expected, value = transformer.config.get(key), other.config.get(other_key)
        if expected is not None and value is not None and expected != value:
            path = other.folder / "config.json"
            raise InputError(
                "models_do_not_fit", path=str(path), field=other_key, value=value, expected=expected
            )

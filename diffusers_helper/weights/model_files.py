"""The search for the models' files below one folder, and their check, without loading any.

Accepts plain folders `ORG/NAME/...` and a Hugging Face cache (`models--ORG--NAME/snapshots/...`, also
below `hub/`), so that a download of any FramePack can be used as it is, and weights where ComfyUI keeps them.
Knows no network.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from .checkpoint import Checkpoint, read_json, unreadable
from .comfyui import SingleFile

HUNYUAN = "hunyuanvideo-community/HunyuanVideo"
FLUX_REDUX = "lllyasviel/flux_redux_bfl"
FRAMEPACK = "lllyasviel/FramePackI2V_HY"
SIBLINGS = re.compile(r"(models--.+--)?FramePack[-_]?(F1|P1|T2V)([-_].*)?", re.IGNORECASE)
"""The names of repositories whose transformer fits, but makes other videos."""
SIGLIP_SIDE = 224
"""Pixels along a side of SigLIP's square pictures where its config does not say."""
FIXED = {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4} | {
    f"{way}_block_types": [f"HunyuanVideo{way.title()}Block3D"] * 4 for way in ("down", "up")
}
"""Settings of the VAE on which our own code relies, and which no weight's shape shows."""
PREPARATION = {"do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255} | {
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
"""The preparation of SigLIP's pictures, which is also the library's default."""
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
        single_file: ComfyUI's file of its weights.
    """

    repository: str
    folder: str
    classes: tuple[str, ...]
    single_file: SingleFile
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
        single_file=SingleFile(
            ("text_encoders", "clip"), r"llava[-_]llama[-_]?3", "llava_llama3_fp16.safetensors"
        ),
        processor="tokenizer",
        processor_files=(_TOKENIZER,),
    ),
    "text_encoder_2": PartSpec(
        HUNYUAN,
        "text_encoder_2",
        classes=("CLIPTextModel",),
        single_file=SingleFile(("text_encoders", "clip"), "clip_l", "clip_l.safetensors"),
        processor="tokenizer_2",
        processor_files=(_BPE_TOKENIZER, _TOKENIZER),
    ),
    "vae": PartSpec(
        HUNYUAN,
        "vae",
        classes=("AutoencoderKLHunyuanVideo",),
        single_file=SingleFile(("vae",), "hunyuan_video_vae", "hunyuan_video_vae_bf16.safetensors"),
        counts={"layers_per_block": "encoder.down_blocks.0.resnets"},
    ),
    "image_encoder": PartSpec(
        FLUX_REDUX,
        "image_encoder",
        classes=("SiglipVisionModel",),
        single_file=SingleFile(
            ("clip_vision",), "sigclip_vision_patch14_384", "sigclip_vision_patch14_384.safetensors"
        ),
        processor="feature_extractor",
        processor_files=(("preprocessor_config.json",),),
    ),
    "transformer": PartSpec(
        FRAMEPACK,
        "",
        classes=("HunyuanVideoTransformer3DModelPacked", "HunyuanVideoFramepackTransformer3DModel"),
        single_file=SingleFile(
            ("diffusion_models", "unet"), "FramePackI2V_HY", "FramePackI2V_HY_bf16.safetensors"
        ),
        counts={
            "num_layers": "transformer_blocks",
            "num_single_layers": "single_transformer_blocks",
            "num_refiner_layers": "refiner_blocks",
        },
    ),
}


@dataclass(frozen=True)
class ModelPart:
    """The checked files of one model: config, weights, and the folder of its tokenizer or image processor.

    `is_eight_bit` tells that we made the weights: others' 8 bits look like ours, and mean other numbers.
    """

    config: dict[str, Any]
    checkpoint: Checkpoint
    processor: Path | None
    is_eight_bit: bool = False

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
        MachineError: no file can be opened now.
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
    root: Path,
    spec: PartSpec,
    readable_folders: Callable[[str], Iterable[Path]] | None = None,
    roots: Sequence[Path] = (),
) -> ModelPart:
    """Find and check one model below `root`. Raises the errors of `find_models`.

    Args:
        readable_folders: lists the folders that may hold a repository, instead of those below `root`; what
            cannot be read there is skipped.
        roots: the folders in which ComfyUI's files may lie, instead of `root`.
    """
    problems = []
    for repository in (readable_folders or partial(repository_folders, root))(spec.repository):
        try:
            return _check_part(repository, spec, roots or [root])
        except InputError as error:  # a cache may hold an older snapshot that is complete
            problems.append(error)
        except OSError:
            if readable_folders is None:
                raise
    if problems:
        raise problems[0]
    find_single_file(spec, roots or [root], root)  # raises where there is one that cannot be used
    raise InputError("model_missing", repository=spec.repository, path=str(root))


def find_single_file(spec: PartSpec, roots: Iterable[Path], folder: Path) -> Checkpoint | None:
    """Find ComfyUI's file of a model; None where there is none. `folder` is that of its config.

    Raises:
        InputError: the only ones have too few bits, or are damaged.
    """
    problems = []
    for path in (path for root in roots for path in spec.single_file.find(root)):
        try:
            if checkpoint := spec.single_file.open(path, folder):
                return checkpoint
        except InputError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    return None


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


def _check_part(repository: Path, spec: PartSpec, roots: Iterable[Path]) -> ModelPart:
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
    checkpoint = _open_weights(folder, spec, roots)
    if spec.repository == FRAMEPACK and (sibling := _find_sibling(repository, config, checkpoint)):
        raise InputError("model_foreign", path=str(folder), found=sibling, expected=FRAMEPACK)
    _check_config(config_path, config, spec, checkpoint)
    return ModelPart(config, checkpoint, processor)


def _open_weights(folder: Path, spec: PartSpec, roots: Iterable[Path]) -> Checkpoint:
    try:
        return Checkpoint.open(folder)
    except InputError as error:
        found = find_single_file(spec, roots, folder) if error.code == "model_file_missing" else None
        if found is None:
            raise
        return found


def _find_sibling(repository: Path, config: dict[str, Any], checkpoint: Checkpoint) -> str | None:
    """Return the name of FramePack's sibling whose files stand in for it, by links or by its config.

    It has the same tensors and settings, but goes from the start on: nothing else tells.
    """
    places = {path.resolve().parent for path in (repository / "config.json", *checkpoint.signatures)}
    places |= {repository.resolve(), *(place.parent for place in places if place.name == "blobs")}
    places |= {place.parent.parent for place in places if place.parent.name == "snapshots"}
    names = [str(config.get("_name_or_path", "")).rpartition("/")[2], *sorted(place.name for place in places)]
    return next(filter(SIBLINGS.fullmatch, names), None)


def _check_config(path: Path, config: dict[str, Any], spec: PartSpec, checkpoint: Checkpoint) -> None:
    """Reject settings that nothing else would: too few layers (a wrong result) or a billion (no memory)."""
    for key, prefix in spec.counts.items():
        pattern = re.compile(rf"(?:.*\.)?{re.escape(prefix)}\.(\d+)\..*")
        numbers = {found[1] for name in checkpoint.tensors if (found := pattern.fullmatch(name))}
        if key in config and config[key] != len(numbers):
            raise wrong_setting(path, key, config[key], len(numbers))
    for key in FIXED.keys() & config.keys():
        if config[key] != FIXED[key]:
            raise wrong_setting(path, key, config[key], json.dumps(FIXED[key]))
    for key, size in {
        "norm_num_groups": None,
        "scaling_factor": None,
        "rope_theta": None,
        "rope_axes_dim": 3,
    }.items():
        if key in config and not _is_setting(config[key], size):
            raise wrong_setting(path, key, config[key], "> 0")


def _is_setting(value: object, size: int | None) -> bool:
    """Return whether the value is a number above 0 or, with a size, a list of as many."""
    if size is not None:
        return isinstance(value, list) and len(value) == size and all(_is_setting(v, None) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def wrong_setting(path: Path, key: str, value: object, expected: object) -> InputError:
    """Return the InputError for a value of a config."""
    text = json.dumps(value)
    text = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return InputError("model_config_value", path=str(path), field=key, value=text, expected=expected)


def check_fit(files: ModelFiles) -> None:
    """Raise InputError for models that cannot work together: the width of each output must fit its input."""
    encoder, transformer = files.image_encoder, files.transformer
    picture_preparation(encoder)
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


def picture_preparation(encoder: ModelPart) -> dict[str, Any]:
    """Return the settings of the vision encoder's pictures. Raises InputError where its file has others."""
    assert encoder.processor is not None
    path = encoder.processor / "preprocessor_config.json"
    side, settings = encoder.config.get("image_size", SIGLIP_SIDE), read_json(path)
    size, fitting = settings.get("size"), {"height": side, "width": side}
    if not isinstance(size, dict) or size | fitting != size:
        raise wrong_setting(path, "size", size, json.dumps(fitting))
    for key, expected in PREPARATION.items():
        if settings.get(key, expected) != expected:
            raise wrong_setting(path, key, settings[key], json.dumps(expected))
    return PREPARATION | {"size": fitting}

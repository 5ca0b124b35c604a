"""Random weights in the real models' shapes, written once as sharded safetensors files."""

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from demo_models.random_models import build_random_models
from diffusers_helper.models.architectures import (
    UNUSED_LLAMA_LAYERS,
    build_empty,
    make_image_encoder,
    make_text_encoder,
    make_text_encoder_2,
    make_transformer,
    make_vae,
)
from diffusers_helper.weights.checkpoint import TORCH_NAMES, Checkpoint
from diffusers_helper.weights.model_files import PARTS, ModelFiles, ModelPart, find_models

SHARDS = 3
TRANSFORMER = {
    "_class_name": "HunyuanVideoTransformer3DModelPacked",
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "has_clean_x_embedder": True,
    "has_image_proj": True,
    "image_proj_dim": 1152,
    "in_channels": 16,
    "mlp_ratio": 4.0,
    "num_attention_heads": 24,
    "num_layers": 20,
    "num_refiner_layers": 2,
    "num_single_layers": 40,
    "out_channels": 16,
    "patch_size": 2,
    "patch_size_t": 1,
    "pooled_projection_dim": 768,
    "qk_norm": "rms_norm",
    "rope_axes_dim": [16, 56, 56],
    "rope_theta": 256.0,
    "text_embed_dim": 4096,
}
TEXT_ENCODER = {
    "architectures": ["LlamaModel"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 128320,
}
TEXT_ENCODER_2 = {
    "architectures": ["CLIPTextModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 49408,
}
IMAGE_ENCODER = {
    "architectures": ["SiglipVisionModel"],
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
VAE = {"_class_name": "AutoencoderKLHunyuanVideo"}
"""The defaults of diffusers are the real VAE's."""


def make_whole_text_encoder(config: dict) -> nn.Module:
    """The Llama with the layers that are never read, too: they are in the files."""
    layers = config["num_hidden_layers"] + UNUSED_LLAMA_LAYERS
    return make_text_encoder({**config, "num_hidden_layers": layers})


MODELS: dict[str, tuple[dict, Callable[[dict], nn.Module], str]] = {
    "text_encoder": (TEXT_ENCODER, make_whole_text_encoder, "F16"),
    "text_encoder_2": (TEXT_ENCODER_2, make_text_encoder_2, "F16"),
    "image_encoder": (IMAGE_ENCODER, make_image_encoder, "F16"),
    "vae": (VAE, make_vae, "F16"),
    "transformer": (TRANSFORMER, make_transformer, "BF16"),
}


def write_transformer(folder: Path, **changes: int) -> ModelPart:
    """The transformer's folder in bfloat16, made unless it is there; names as upstream's, sorted.

    Args:
        changes: other values of its config, fewer blocks for one.
    """
    config = TRANSFORMER | changes
    _write_model(folder, config, make_transformer, "BF16")
    return ModelPart(config, Checkpoint.open(folder), None)


def write_vae(folder: Path) -> ModelPart:
    """The VAE's folder in float16, made unless it is there."""
    _write_model(folder, *MODELS["vae"])
    return ModelPart(VAE, Checkpoint.open(folder), None)


def write_models(root: Path) -> ModelFiles:
    """The whole set, 42 GB, with the tiny models' tokenizers."""
    tiny = build_random_models(root.with_name(root.name + "-tiny"))
    for name, (config, make, dtype) in MODELS.items():
        spec = PARTS[name]
        _write_model(root / spec.repository / spec.folder, config, make, dtype)
        if spec.processor is not None:
            target = root / spec.repository / spec.processor
            shutil.copytree(tiny / spec.repository / spec.processor, target, dirs_exist_ok=True)
    processor = root / PARTS["image_encoder"].repository / "feature_extractor" / "preprocessor_config.json"
    values = json.loads(processor.read_text()) | {"size": {"height": 384, "width": 384}}
    processor.write_text(json.dumps(values))
    return find_models(root)


def _write_model(folder: Path, config: dict, make: Callable[[dict], nn.Module], dtype: str) -> None:
    marker = folder / "config.json"
    if marker.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    empty = build_empty(ModelPart(config, Checkpoint(folder, {}, {}), None), make)
    write_shards(folder, {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}, dtype)
    marker.write_text(json.dumps(config))


def write_shards(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    """Spread tensors over shards by size, in the order of their names, filled by a seeded generator."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    total = sum(math.prod(shape) for shape in shapes.values())
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    passed = 0
    for name in sorted(shapes):
        shards[min(passed * SHARDS // total, SHARDS - 1)].append(name)
        passed += math.prod(shapes[name])
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-{SHARDS:05d}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        header, offset = {}, 0
        for name in names:
            end = offset + math.prod(shapes[name]) * 2
            header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                out.write(_random_tensor(name, shapes[name], generator, getattr(torch, TORCH_NAMES[dtype])))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _random_tensor(
    name: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
) -> memoryview:
    values = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    if name.endswith("bias"):
        values *= 0.02
    elif len(shape) > 1:
        values /= math.sqrt(math.prod(shape[1:]))
    else:
        values = 1 + 0.02 * values  # a norm's weight
    return values.to(dtype).cpu().flatten().view(torch.uint8).numpy().data

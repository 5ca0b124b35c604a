"""Random weights in the real models' shapes, written once as sharded safetensors files."""

import json
import math
import struct
from pathlib import Path

import torch

from diffusers_helper.architectures import build_empty, make_transformer
from diffusers_helper.checkpoint import Checkpoint
from diffusers_helper.model_files import ModelPart

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


def write_transformer(folder: Path) -> ModelPart:
    """The transformer's folder in bfloat16, made unless it is there; names as upstream's, sorted."""
    marker = folder / "config.json"
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        empty = build_empty(ModelPart(TRANSFORMER, Checkpoint(folder, {}, {}), None), make_transformer)
        shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
        write_shards(folder, shapes)
        marker.write_text(json.dumps(TRANSFORMER))
    return ModelPart(TRANSFORMER, Checkpoint.open(folder), None)


def write_shards(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
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
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                out.write(_random_tensor(name, shapes[name], generator, device))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator, device: str) -> memoryview:
    values = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    if name.endswith("bias"):
        values *= 0.02
    elif len(shape) > 1:
        values /= math.sqrt(math.prod(shape[1:]))
    else:
        values = 1 + 0.02 * values  # a norm's weight
    return values.to(torch.bfloat16).cpu().view(torch.uint8).numpy().data

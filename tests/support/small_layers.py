"""Seven small layers in two files, as far as streaming looks at them. Used by several tests."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from diffusers_helper.streaming.layout import Layer, describe_layer
from diffusers_helper.weights.checkpoint import Checkpoint

COUNT = 7
FIRST_FILE = "model-00001-of-00002.safetensors"


def store(folder: Path) -> dict[str, torch.Tensor]:
    """Write the layers, each split over two files; returns their weights by name."""
    weights = {}
    for i in range(COUNT):
        weights[f"layers.{i}.weight"] = torch.randn(5, 33)
        weights[f"layers.{i}.bias"] = torch.randn(5)
    for number, part in enumerate(("weight", "bias")):
        file = folder / f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensor for name, tensor in weights.items() if name.endswith(part)}, file)
    index = {name: f"model-0000{1 + name.endswith('bias')}-of-00002.safetensors" for name in weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return weights


def describe(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Checkpoint, list[Layer]]:
    checkpoint = Checkpoint.open(folder)
    layers = [
        describe_layer(
            "linear",
            make_linear("linear"),
            {name: f"layers.{i}.{name}" for name in ("weight", "bias")},
            checkpoint,
            dtype,
        )
        for i in range(COUNT)
    ]
    return checkpoint, layers


def make_linear(_kind: str) -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(33, 5)

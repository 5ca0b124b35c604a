"""Seven small layers in two files, as far as streaming looks at them. Used by several tests."""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from diffusers_helper.streaming.layers import StreamedLayers
from diffusers_helper.streaming.layout import Layer, describe_layer
from diffusers_helper.streaming.reader import ChunkReader
from diffusers_helper.streaming.ring import WeightRing
from diffusers_helper.weights.checkpoint import Checkpoint

COUNT = 7
FIRST_FILE, SECOND_FILE = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
CPU = torch.device("cpu")


class SmallLayers:
    """The layers in `folder`, each split over two files, with their weights by name."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder = folder
        self.weights = _store(folder)
        self.checkpoint = Checkpoint.open(folder)
        self.layers = [self._describe(index, dtype) for index in range(COUNT)]

    def streamed(self) -> StreamedLayers:
        return StreamedLayers(self.layers, make_linear, self.checkpoint, CPU)

    def ring(self, num_slots: int, kept: Mapping[int, torch.Tensor] | None = None) -> WeightRing:
        return WeightRing(self.layers, num_slots, CPU, self.checkpoint.signatures, kept)

    def buffers(self, *indices: int) -> dict[int, torch.Tensor]:
        """Flat CPU buffers of some layers."""
        with closing(ChunkReader(self.checkpoint.signatures)) as reader:
            return {index: reader.read_layer(self.layers[index], CPU) for index in indices}

    def take(self, ring: WeightRing, index: int) -> None:
        """Take the next layer out of a ring and check that it is `index`."""
        assert ring.position == index
        for name, view in self.layers[index].views(ring.slots[ring.acquire()]).items():
            assert torch.equal(view, self.weights[f"layers.{index}.{name}"])
        ring.release()

    def check(self, index: int, module: nn.Module) -> None:
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, self.weights[f"layers.{index}.{name}"])

    def check_pass(self, streamed: StreamedLayers) -> None:
        """Check the weights of a whole pass."""
        indices = []
        for index, module in streamed:
            self.check(index, module)
            indices.append(index)
        assert indices == list(range(COUNT))

    def _describe(self, index: int, dtype: torch.dtype) -> Layer:
        names = {name: f"layers.{index}.{name}" for name in ("weight", "bias")}
        return describe_layer("linear", make_linear("linear"), names, self.checkpoint, dtype)


def _store(folder: Path) -> dict[str, torch.Tensor]:
    weights = {f"layers.{i}.weight": torch.randn(5, 33) for i in range(COUNT)}
    biases = {f"layers.{i}.bias": torch.randn(5) for i in range(COUNT)}
    save_file(weights, folder / FIRST_FILE)
    save_file(biases, folder / SECOND_FILE)
    index = dict.fromkeys(weights, FIRST_FILE) | dict.fromkeys(biases, SECOND_FILE)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return weights | biases


def make_linear(_kind: str) -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(33, 5)

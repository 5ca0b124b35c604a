"""The transformer on GPUs without bfloat16: weights and products in float16, float32 between them.

Values between the real model's layers exceed 65504, float16's largest number: its users saw black videos.
"""

import torch
from torch import nn
from torch.nn import functional

LARGEST_INPUT = 256.0
"""The largest number of a token in a product: with it, small ones keep their digits, and sums stay finite."""
VALUE_LAYERS = ("attn.to_v", "attn.add_v_proj")
"""The layers of a block whose outputs meet queries and keys, which their norms leave in float16."""


class Float16Linear(nn.Linear):
    """An `nn.Linear` with float16 weights that takes and returns float32, however large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST_INPUT
        product = functional.linear((x / scale).to(self.weight.dtype), self.weight).float() * scale
        return product if self.bias is None else product + self.bias


def use_float32_between_layers(block: nn.Module) -> None:
    """Have the layers of a block without weights take and return float32, but for the attention's inputs."""
    for name, layer in list(block.named_modules()):
        if type(layer) is nn.Linear:
            wide = Float16Linear(layer.in_features, layer.out_features, layer.bias is not None, "meta")
            block.set_submodule(name, wide)
        if name in VALUE_LAYERS:
            block.get_submodule(name).register_forward_hook(lambda _layer, _inputs, value: value.half())

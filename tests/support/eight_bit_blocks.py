"""Transformer blocks with 8-bit weights."""

from functools import partial

import torch
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTransformerBlock,
)
from torch import nn

from diffusers_helper.eight_bit.block import FUSED_FORWARDS, can_fuse, use_fused_forward
from diffusers_helper.eight_bit.linear import ScaledLinear, quantize
from diffusers_helper.transformer.compiling import COMPILED_FORWARD
from diffusers_helper.transformer.modulation import modulation_sizes, set_modulation, strip_modulation
from tests.support.token_ops import TORCH_OPS

CPU = torch.device("cpu")
HEADS, HEAD_DIM = 4, 64
WIDTH = HEADS * HEAD_DIM
KINDS = {"double": HunyuanVideoTransformerBlock, "single": HunyuanVideoSingleTransformerBlock}


def traced_product(tokens, weight, scale, bias):
    """Do `linear.Product` in one expression, as a compiler can take it."""
    whole = (tokens.numbers.float() @ weight.float().T) * tokens.scale * scale + bias
    return whole.to(tokens.dtype)


def make_block(kind, product=traced_product, dtype=torch.float32, device=CPU, attention=None):
    """Make a block with 8-bit weights, whose layers compute with `product`."""
    torch.manual_seed(1)
    block = KINDS[kind](HEADS, HEAD_DIM, mlp_ratio=4.0)
    for name, parameter in block.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    block = strip_modulation(block, kind).to(device, dtype)
    for name, layer in list(block.named_modules()):
        if isinstance(layer, nn.Linear):
            block.set_submodule(name, scaled(layer, product))
    if can_fuse(block):
        use_fused_forward(block, kind, attention)
    else:
        setattr(block, COMPILED_FORWARD, partial(FUSED_FORWARDS[kind], TORCH_OPS, attention))
    sizes = modulation_sizes(kind, WIDTH)
    set_modulation(block, kind, tuple(torch.randn(1, size).to(device, dtype) for size in sizes))
    return block


def scaled(linear, product):
    layer = ScaledLinear(linear.in_features, linear.out_features, True)
    layer.weight.data, layer.scale.data = quantize(linear.weight.data.float())
    layer.bias.data = linear.bias.data
    layer.product = product
    return layer


def states(hidden=20, text=7, dtype=torch.float32):
    """Make a block's arguments."""
    torch.manual_seed(2)
    angles = torch.randn(hidden, HEAD_DIM // 2).repeat_interleave(2, dim=1)
    first, second = torch.randn(1, hidden, WIDTH, dtype=dtype), torch.randn(1, text, WIDTH, dtype=dtype)
    return first, second, torch.randn(1, WIDTH, dtype=dtype), None, (angles.cos(), angles.sin())

"""The transformer's blocks with 8-bit weights, written for a compiler.

The numbers are those of diffusers' blocks (`transformer_hunyuan_video.py`) but for the rounding. There, each
layer quantizes its tokens for itself; here that is done once for all layers that see the same tokens, in one
pass together with the norm or the activation before it. Measured in `benchmarks/log.md`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..transformer.compiling import COMPILED_FORWARD, COMPILED_TOLERANCE, States
from .linear import ScaledLinear, kernel_product
from .tokens import TokenOps, Tokens

INT8_ATTENTION_TOLERANCE = 0.04
"""The largest relative error of compiled blocks with int8 attention (measured: 0.023)."""
Rotary = tuple[torch.Tensor, torch.Tensor]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""The function that computes attention of query, key and value `(1, tokens, heads, head_dim)`."""


def can_fuse(block: nn.Module) -> bool:
    """Return whether all of a block's layers multiply by our kernel."""
    layers = [layer for layer in block.modules() if isinstance(layer, nn.Linear | ScaledLinear)]
    return all(isinstance(layer, ScaledLinear) and layer.product is kernel_product for layer in layers)


def use_fused_forward(block: nn.Module, kind: str, attention: Attention | None = None) -> None:
    """Have a block that `can_fuse` compiled from this module's function.

    Args:
        attention: the attention to compute with; None for the active backend.
    """
    from .token_kernels import KERNELS

    setattr(block, COMPILED_FORWARD, partial(FUSED_FORWARDS[kind], KERNELS, attention))
    if attention is not None:
        setattr(block, COMPILED_TOLERANCE, INT8_ATTENTION_TOLERANCE)


def _double_block(
    ops: TokenOps,
    attention: Attention | None,
    block: Any,
    hidden: torch.Tensor,
    text: torch.Tensor,
    temb: torch.Tensor,
    mask: torch.Tensor | None,
    rotary: Rotary,
) -> States:
    """`HunyuanVideoTransformerBlock.forward`: two streams that meet in the attention."""
    attn, count = block.attn, hidden.shape[1]
    shift, scale, gate, *mlp = _modulation(block.norm1, temb, 6)
    text_shift, text_scale, text_gate, *text_mlp = _modulation(block.norm1_context, temb, 6)
    tokens = _quantize_normed(ops, hidden, scale, shift)
    text_tokens = _quantize_normed(ops, text, text_scale, text_shift)

    query, key, value = (layer.multiply(tokens) for layer in (attn.to_q, attn.to_k, attn.to_v))
    text_layers = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
    text_query, text_key, text_value = (layer.multiply(text_tokens) for layer in text_layers)
    query = ops.norm_and_rotate(query, text_query, attn.norm_q.weight, attn.norm_added_q.weight, *rotary)
    key = ops.norm_and_rotate(key, text_key, attn.norm_k.weight, attn.norm_added_k.weight, *rotary)
    attended = _attend(query, key, torch.cat([value, text_value]), attn.heads, mask, attention)

    hidden = hidden + gate * attn.to_out[0].multiply(ops.quantize_tokens(attended[:count]))
    text = text + text_gate * attn.to_add_out.multiply(ops.quantize_tokens(attended[count:]))
    return _add_mlp(ops, block.ff, hidden, *mlp), _add_mlp(ops, block.ff_context, text, *text_mlp)


def _single_block(
    ops: TokenOps,
    attention: Attention | None,
    block: Any,
    hidden: torch.Tensor,
    text: torch.Tensor,
    temb: torch.Tensor,
    mask: torch.Tensor | None,
    rotary: Rotary,
) -> States:
    """`HunyuanVideoSingleTransformerBlock.forward`: one stream, attention and MLP beside each other."""
    attn, count = block.attn, hidden.shape[1]
    shift, scale, gate = _modulation(block.norm, temb, 3)
    tokens = ops.quantize_normed(hidden[0], text[0], scale, shift)

    layers = attn.to_q, attn.to_k, attn.to_v, block.proj_mlp
    query, key, value, mlp = (layer.multiply(tokens) for layer in layers)
    norm_q, norm_k = attn.norm_q.weight, attn.norm_k.weight
    query = ops.norm_and_rotate(query[:count], query[count:], norm_q, norm_q, *rotary)
    key = ops.norm_and_rotate(key[:count], key[count:], norm_k, norm_k, *rotary)
    attended = _attend(query, key, value, attn.heads, mask, attention)

    change = block.proj_out.multiply(ops.quantize_activated(attended, mlp))
    return hidden + gate * change[:count], text + gate * change[count:]


def _modulation(norm: Any, temb: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Return the modulation's vectors `(width,)`."""
    return norm.linear(norm.silu(temb))[0].chunk(count)


def _quantize_normed(ops: TokenOps, states: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> Tokens:
    """Norm, modulate and quantize one stream `(1, n, width)`."""
    return ops.quantize_normed(states[0], states[0, :0], scale, shift)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None,
    attention: Attention | None,
) -> torch.Tensor:
    """Return the attention of `(n, heads * head_dim)`, with the active backend if none is given."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    states = (each.unflatten(1, (heads, -1))[None] for each in (query, key, value))
    if attention is not None and mask is None:
        return attention(*states)[0].flatten(1)
    return dispatch_attention_fn(*states, attn_mask=mask)[0].flatten(1)


def _add_mlp(
    ops: TokenOps,
    layers: Any,
    states: torch.Tensor,
    shift: torch.Tensor,
    scale: torch.Tensor,
    gate: torch.Tensor,
) -> torch.Tensor:
    """Return one stream `(1, n, width)` with the output of its feed-forward layers added."""
    hidden = layers.net[0].proj.multiply(_quantize_normed(ops, states, scale, shift))
    return states + gate * layers.net[2].multiply(ops.quantize_activated(hidden[:, :0], hidden))


FUSED_FORWARDS = {"double": _double_block, "single": _single_block}

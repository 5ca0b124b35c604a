"""The 8-bit tokens for a GPU's native e4m3 products: an e4m3 number for each value, a scale for each token.

A block makes them in three ways, each joined with another operation, which `TokenOps` names. Here they are in
PyTorch's operations; `token_kernels.py` does each in one pass over the GPU's memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
NORM_EPSILON = 1e-6
"""The epsilon of all norms of the blocks, over tokens and over heads."""


class Tokens(NamedTuple):
    """Quantized tokens: `numbers` `(n, width)` e4m3, their `scale` `(n, 1)` float32, the dtype they had."""

    numbers: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype

    def dequantize(self) -> torch.Tensor:
        """Return the tokens in float32."""
        return self.numbers.float() * self.scale


class TokenOps(NamedTuple):
    """The operations of a block on tokens; see the functions of the same names below."""

    quantize_normed: Callable[..., Tokens]
    quantize_activated: Callable[..., Tokens]
    norm_and_rotate: Callable[..., torch.Tensor]


def quantize_tokens(x: torch.Tensor) -> Tokens:
    """Quantize tokens `(..., width)`, flattened to `(n, width)`; the largest number of each is 448.

    Computed in float32, but held in the tokens' dtype: float32 would be too large for an 8 GB GPU.
    """
    tokens = x.reshape(-1, x.shape[-1])
    largest = torch.linalg.vector_norm(tokens, float("inf"), dim=1, keepdim=True, dtype=torch.float32)
    scale = (largest / LARGEST).clamp_min(SMALLEST_SCALE)
    scaled = torch.div(tokens, scale, out=torch.empty(tokens.shape, dtype=x.dtype, device=x.device))
    return Tokens(scaled.to(E4M3), scale, x.dtype)


def quantize_normed(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> Tokens:
    """Norm, modulate by `(width,)` and quantize tokens `(n, width)` and `(m, width)`, concatenated."""
    both = torch.cat([first, second])
    normed = functional.layer_norm(both, both.shape[-1:], eps=NORM_EPSILON)
    return quantize_tokens(normed * (1 + scale) + shift)


def quantize_activated(before: torch.Tensor, hidden: torch.Tensor) -> Tokens:
    """Quantize `before` `(n, w)`, where w may be 0, concatenated with GELU of `hidden` `(n, h)`."""
    return quantize_tokens(torch.cat([before, functional.gelu(hidden, approximate="tanh")], dim=1))


def norm_and_rotate(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weight: torch.Tensor,
    second_weight: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
) -> torch.Tensor:
    """Norm each head of queries or keys `(n, heads * head_dim)` and `(m, ...)`, concatenated.

    The `first` are rotated (RoPE, arXiv 2104.09864) by angles as diffusers gives them: `(n, head_dim)`
    float32, each twice, for the two neighbours of a pair. Weights are `(head_dim,)`.
    """
    size = len(first_weight)
    heads = functional.rms_norm(first.unflatten(1, (-1, size)), (size,), first_weight, NORM_EPSILON)
    even, odd = heads.unflatten(2, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(2)
    rotated = heads.float() * cosine[:, None] + turned.float() * sine[:, None]
    others = functional.rms_norm(second.unflatten(1, (-1, size)), (size,), second_weight, NORM_EPSILON)
    return torch.cat([rotated.to(first.dtype), others]).flatten(1)


TORCH_OPS = TokenOps(quantize_normed, quantize_activated, norm_and_rotate)

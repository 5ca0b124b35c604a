"""The operations of `token_kernels` in PyTorch's own, which the kernels are compared with."""

import torch
from torch.nn import functional

from diffusers_helper.eight_bit.tokens import TokenOps, Tokens, quantize_tokens

NORM_EPSILON = 1e-6


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

    The `first` are turned (RoPE, arXiv 2104.09864) by angles as diffusers gives them: `(n, head_dim)`
    float32, each twice, for the two neighbours of a pair. Weights are `(head_dim,)`.
    """
    size = len(first_weight)
    heads = functional.rms_norm(first.unflatten(1, (-1, size)), (size,), first_weight, NORM_EPSILON)
    even, odd = heads.unflatten(2, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(2)
    rotated = heads.float() * cosine[:, None] + turned.float() * sine[:, None]
    others = functional.rms_norm(second.unflatten(1, (-1, size)), (size,), second_weight, NORM_EPSILON)
    return torch.cat([rotated.to(first.dtype), others]).flatten(1)


TORCH_OPS = TokenOps(quantize_tokens, quantize_normed, quantize_activated, norm_and_rotate)

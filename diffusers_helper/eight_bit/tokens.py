"""Tokens of 8 bits for the card's own products: a number of e4m3 for each value, a scale for each token.

A block makes them at three places, always together with something else, which `TokenOps` names: a card does
each in one pass over its memory, in kernels of ours (`eight_bit_token_kernel.py`); without Triton the same is
written in torch's operations.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional

from ..kernels import triton_or_torch

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
NORM_EPSILON = 1e-6
"""Of all norms of the blocks, over tokens and over heads."""
TRIAL_ERROR = 0.02
"""The most that a kernel may be away: a number at the border between two of e4m3 may become either."""


class Tokens(NamedTuple):
    """`numbers` `(n, width)` e4m3 and their `scale` `(n, 1)` float32."""

    numbers: torch.Tensor
    scale: torch.Tensor


class TokenOps(NamedTuple):
    """What a block does to tokens; see the functions of the same names below."""

    quantise_normed: Callable[..., Tokens]
    quantise_activated: Callable[..., Tokens]
    norm_and_rotate: Callable[..., torch.Tensor]


def quantise_tokens(x: torch.Tensor) -> Tokens:
    """Tokens `(..., width)`, flattened to `(n, width)`, in 8 bits; the largest number of each is 448.

    Computed in float32 and kept in the tokens' dtype between: on an 8 GB card, float32 would be too large.
    """
    tokens = x.reshape(-1, x.shape[-1])
    largest = torch.linalg.vector_norm(tokens, float("inf"), dim=1, keepdim=True, dtype=torch.float32)
    scale = (largest / LARGEST).clamp_min(SMALLEST_SCALE)
    scaled = torch.div(tokens, scale, out=torch.empty(tokens.shape, dtype=x.dtype, device=x.device))
    return Tokens(scaled.to(E4M3), scale)


def quantise_normed(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> Tokens:
    """Tokens `(n, width)` and `(m, width)`, one behind the other, normed and modulated by `(width,)`."""
    both = torch.cat([first, second])
    normed = functional.layer_norm(both, both.shape[-1:], eps=NORM_EPSILON)
    return quantise_tokens(normed * (1 + scale) + shift)


def quantise_activated(before: torch.Tensor, hidden: torch.Tensor) -> Tokens:
    """Tokens of `before` `(n, w)`, where w may be 0, and beside them GELU of `hidden` `(n, h)`."""
    return quantise_tokens(torch.cat([before, functional.gelu(hidden, approximate="tanh")], dim=1))


def norm_and_rotate(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weight: torch.Tensor,
    second_weight: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
) -> torch.Tensor:
    """Queries or keys `(n, heads * head_dim)` and `(m, ...)`, one behind the other, each head normed.

    The `first` are rotated by their places, given as diffusers does: `(n, head_dim)` float32, each value
    twice, for neighbours that make a pair (RoPE, arXiv 2104.09864). Weights are `(head_dim,)`.
    """
    size = len(first_weight)
    heads = functional.rms_norm(first.unflatten(1, (-1, size)), (size,), first_weight, NORM_EPSILON)
    even, odd = heads.unflatten(2, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(2)
    rotated = heads.float() * cosine[:, None] + turned.float() * sine[:, None]
    others = functional.rms_norm(second.unflatten(1, (-1, size)), (size,), second_weight, NORM_EPSILON)
    return torch.cat([rotated.to(first.dtype), others]).flatten(1)


OPS = TokenOps(quantise_normed, quantise_activated, norm_and_rotate)


@cache
def choose_token_ops(device: torch.device) -> TokenOps:
    """The fastest on a device, decided once: the kernels only after they have computed something right."""
    return triton_or_torch(OPS, _load_kernels, _try_out, device)


def _load_kernels() -> TokenOps:
    from .token_kernels import KERNELS

    return KERNELS


def _try_out(ops: TokenOps, device: torch.device) -> None:
    """Raises ArithmeticError where a result is not what it must be."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    first, second, hidden = randn(6, 96), randn(3, 96), randn(6, 160)
    angles = randn(6, 32, dtype=torch.float32)
    given: dict[str, tuple[torch.Tensor, ...]] = {
        "quantise_normed": (first, second, randn(96), randn(96)),
        "quantise_activated": (first, hidden),
        "norm_and_rotate": (first, second, randn(32), randn(32), angles.cos(), angles.sin()),
    }
    for name, arguments in given.items():
        found, wanted = (_whole(getattr(each, name)(*arguments)) for each in (ops, OPS))
        error = float((found - wanted).norm() / wanted.norm())
        if not error < TRIAL_ERROR:
            raise ArithmeticError(f"{name} is wrong by {error:.3g}")


def _whole(result: Tokens | torch.Tensor) -> torch.Tensor:
    if isinstance(result, Tokens):
        return result.numbers.float() * result.scale
    return result.float()

"""The 8-bit tokens of int8 products: rotated, an int8 number for each value, a scale for each token.

A rotation in blocks (a Hadamard matrix, as in QuaRot, arXiv 2404.00456) spreads what stands out in a token
or in a weight's row over its block, so that one scale is enough. It is orthonormal: a product of rotated
tokens and rotated weights is that of the tokens and weights themselves.

A block makes tokens in three ways, two of them joined with another operation, which `TokenOps` names. Here
they are in PyTorch's operations; `token_kernels.py` does each in one pass over the GPU's memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

LARGEST = 127
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
ROTATION_WIDTHS = (256, 64, 16, 4, 1)
"""The widths of a rotation's blocks: powers of 4, whose matrices every number format holds exactly."""
_MATRICES: dict[tuple[int, torch.device, torch.dtype], torch.Tensor] = {}  # a compiler ignores lru_cache
NORM_EPSILON = 1e-6
"""The epsilon of all norms of the blocks, over tokens and over heads."""


class Tokens(NamedTuple):
    """Quantized tokens: `numbers` `(n, width)` int8, rotated, `scale` `(n, 1)` float32, their old dtype."""

    numbers: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype

    def dequantize(self) -> torch.Tensor:
        """Return the tokens, rotated back, in float32."""
        return rotate(self.numbers.float() * self.scale)


class TokenOps(NamedTuple):
    """The operations of a block on tokens; see the functions of the same names below."""

    quantize_tokens: Callable[..., Tokens]
    quantize_normed: Callable[..., Tokens]
    quantize_activated: Callable[..., Tokens]
    norm_and_rotate: Callable[..., torch.Tensor]


def rotation_width(width: int) -> int:
    """Return the width of the blocks in which `width` numbers are rotated."""
    return next(size for size in ROTATION_WIDTHS if width % size == 0)


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotate `(..., width)` along its last dimension; a second rotation undoes it."""
    size = rotation_width(x.shape[-1])
    return (x.unflatten(-1, (-1, size)) @ _hadamard(size, x.device, x.dtype)).flatten(-2)


def _hadamard(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return Sylvester's matrix `(size, size)`, symmetric, of unit columns."""
    if (size, device, dtype) not in _MATRICES:
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
        _MATRICES[size, device, dtype] = (matrix / size**0.5).to(device, dtype)
    return _MATRICES[size, device, dtype]


def quantize_tokens(x: torch.Tensor) -> Tokens:
    """Rotate and quantize tokens `(..., width)`, flattened to `(n, width)`; the largest number is 127.

    Held in the tokens' dtype: float32 would be too large for an 8 GB GPU. In float16, where a rotation's sums
    overflow, each token is divided by its largest number first.
    """
    tokens = x.reshape(-1, x.shape[-1])
    peak = _largest(tokens) if x.dtype == torch.float16 else None
    rotated = rotate(tokens if peak is None else (tokens / peak).to(x.dtype))
    scale = (_largest(rotated) / LARGEST).clamp_min(SMALLEST_SCALE)
    scaled = torch.div(rotated, scale, out=torch.empty_like(rotated))
    numbers = scaled.round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
    return Tokens(numbers, scale if peak is None else scale * peak, x.dtype)


def _largest(tokens: torch.Tensor) -> torch.Tensor:
    """Return the largest absolute value of each token `(n, 1)`, float32, not 0."""
    norm = torch.linalg.vector_norm(tokens, float("inf"), dim=1, keepdim=True, dtype=torch.float32)
    return norm.clamp_min(SMALLEST_SCALE)


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

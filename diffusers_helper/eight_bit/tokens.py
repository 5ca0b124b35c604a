"""The 8-bit tokens of int8 products: rotated, an int8 number for each value, a scale for each token.

A rotation in blocks (a Hadamard matrix, as in QuaRot, arXiv 2404.00456) spreads what stands out in a token
or in a weight's row over its block, so that one scale is enough. It is orthonormal: a product of rotated
tokens and rotated weights is that of the tokens and weights themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

LARGEST = 127
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
ROTATION_WIDTHS = (256, 64, 16, 4, 1)
"""The widths of a rotation's blocks: powers of 4, whose matrices every number format holds exactly."""
_MATRICES: dict[tuple[int, torch.device, torch.dtype], torch.Tensor] = {}  # a compiler ignores lru_cache


class Tokens(NamedTuple):
    """Quantized tokens: `numbers` `(n, width)` int8, rotated, `scale` `(n, 1)` float32, their old dtype."""

    numbers: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype

    def dequantize(self) -> torch.Tensor:
        """Return the tokens, rotated back, in float32."""
        return rotate(self.numbers.float() * self.scale)


class TokenOps(NamedTuple):
    """The operations of a block on tokens, which `token_kernels.py` describes."""

    quantize_tokens: Callable[..., Tokens]
    quantize_normed: Callable[..., Tokens]
    quantize_activated: Callable[..., Tokens]
    norm_and_rotate: Callable[..., torch.Tensor]


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotate `(..., width)` along its last dimension; a second rotation undoes it."""
    size = next(width for width in ROTATION_WIDTHS if x.shape[-1] % width == 0)
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

    Held in the tokens' dtype: float32 would be too large for an 8 GB GPU. It is never float16, where a
    rotation's sums would overflow.
    """
    rotated = rotate(x.reshape(-1, x.shape[-1]))
    largest = torch.linalg.vector_norm(rotated, float("inf"), dim=1, keepdim=True, dtype=torch.float32)
    scale = (largest / LARGEST).clamp_min(SMALLEST_SCALE)
    scaled = torch.div(rotated, scale, out=torch.empty_like(rotated))
    return Tokens(scaled.round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale, x.dtype)

"""The Triton kernels of a block's operations on tokens. Importing it needs Triton.

A program holds a whole token (or some of its heads) in registers, so that memory is read once and written
once. All but the rotation is computed in float32. Widths are multiples of the 256 numbers that it joins. A
compiler takes the kernels into its graphs unchanged.
"""

from typing import Any

import torch
import triton
from triton import language as tl

from .tokens import LARGEST, ROTATION_WIDTHS, SMALLEST_SCALE, TokenOps, Tokens

ELEMENTS_A_WARP = 2048
"""The elements of a token for each warp, 64 a thread. This and the next two are tuned on an H100 (10 %)."""
MOST_WARPS = 8
HEADS = 16
"""The number of heads in one program."""
EPSILON = tl.constexpr(1e-6)
"""The epsilon of all norms of the blocks, over tokens and over heads."""
LARGEST_NUMBER, SMALLEST = tl.constexpr(LARGEST), tl.constexpr(SMALLEST_SCALE)


def quantize_tokens(x: torch.Tensor) -> Tokens:
    """Do `tokens.quantize_tokens` of `(n, width)`."""
    return _quantize(x, x[:0])


def quantize_normed(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> Tokens:
    """Norm, modulate by `(width,)` and quantize tokens `(n, width)` and `(m, width)`, concatenated."""
    return _quantize(first, second, scale, shift)


def _quantize(
    first: torch.Tensor,
    second: torch.Tensor,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
) -> Tokens:
    """Quantize tokens, normed and modulated before if there are a scale and a shift, in one kernel."""
    first, second = first.contiguous(), second.contiguous()
    count, width = first.shape[0] + second.shape[0], first.shape[1]
    tokens, block = _empty_tokens(first, count, width), _power_of_2(width)
    kernel: Any = _quantize_rows
    kernel[(count,)](
        first,
        second,
        first if scale is None else scale.contiguous(),
        first if shift is None else shift.contiguous(),
        tokens.numbers,
        tokens.scale,
        first.shape[0],
        width=width,
        block=block,
        is_normed=scale is not None,
        num_warps=_warps(block),
    )
    return tokens


def quantize_activated(before: torch.Tensor, hidden: torch.Tensor) -> Tokens:
    """Quantize `before` `(n, w)`, where w may be 0, concatenated with GELU of `hidden` `(n, h)`."""
    before, hidden = before.contiguous(), hidden.contiguous()
    count, before_width, hidden_width = hidden.shape[0], before.shape[1], hidden.shape[1]
    tokens, block = _empty_tokens(hidden, count, before_width + hidden_width), _power_of_2(hidden_width)
    kernel: Any = _quantize_activated
    kernel[(count,)](
        before,
        hidden,
        tokens.numbers,
        tokens.scale,
        before_width=before_width,
        before_block=max(_power_of_2(before_width), ROTATION_WIDTHS[0]),
        hidden_width=hidden_width,
        hidden_block=block,
        num_warps=_warps(block),
    )
    return tokens


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
    first, second = first.contiguous(), second.contiguous()
    count, width, size = first.shape[0] + second.shape[0], first.shape[1], first_weight.shape[0]
    result = torch.empty(count, width, dtype=first.dtype, device=first.device)
    kernel: Any = _norm_and_rotate
    kernel[(count, -(-width // (size * HEADS)))](
        first,
        second,
        first_weight.contiguous(),
        second_weight.contiguous(),
        cosine.contiguous(),
        sine.contiguous(),
        result,
        first.shape[0],
        width=width,
        size=size,
        heads=HEADS,
        num_warps=1,
    )
    return result


KERNELS = TokenOps(quantize_tokens, quantize_normed, quantize_activated, norm_and_rotate)


def _empty_tokens(like: torch.Tensor, count: int, width: int) -> Tokens:
    numbers = torch.empty(count, width, dtype=torch.int8, device=like.device)
    return Tokens(numbers, torch.empty(count, 1, dtype=torch.float32, device=like.device), like.dtype)


def _power_of_2(number: int) -> int:
    """Return the smallest power of 2 that is not less."""
    return 1 << max(number - 1, 0).bit_length()


def _warps(block: int) -> int:
    return min(max(block // ELEMENTS_A_WARP, 1), MOST_WARPS)


@triton.jit
def _quantize_rows(  # noqa: PLR0913  (a kernel gets numbers, no objects)
    first,
    second,
    scale,
    shift,
    numbers,
    token_scale,
    first_count,
    width: tl.constexpr,
    block: tl.constexpr,
    is_normed: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    value = _load_row(first, second, row, first_count, width, column)
    if is_normed:
        away = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
        normed = away * tl.rsqrt(tl.sum(away * away, 0) / width + EPSILON)
        factor = 1 + tl.load(scale + column, mask=inside, other=0.0).to(tl.float32)
        value = normed * factor + tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    rotated = _rotate(value, block, first.dtype.element_ty)
    one = _scale(rotated)
    tl.store(token_scale + row, one)
    tl.store(numbers + row * width + column, _rounded(rotated / one), mask=inside)


@triton.jit
def _quantize_activated(
    before,
    hidden,
    numbers,
    token_scale,
    before_width: tl.constexpr,
    before_block: tl.constexpr,
    hidden_width: tl.constexpr,
    hidden_block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = numbers + row * (before_width + hidden_width)
    column = tl.arange(0, hidden_block)
    inside = column < hidden_width
    value = tl.load(hidden + row * hidden_width + column, mask=inside, other=0.0).to(tl.float32)
    active = value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))
    rotated = _rotate(active, hidden_block, hidden.dtype.element_ty)
    one = _scale(rotated)
    if before_width > 0:
        position = tl.arange(0, before_block)
        fits = position < before_width
        beside = tl.load(before + row * before_width + position, mask=fits, other=0.0).to(tl.float32)
        turned = _rotate(beside, before_block, before.dtype.element_ty)
        other = _scale(turned)
        one = tl.maximum(one, other, propagate_nan=tl.PropagateNan.ALL)
        tl.store(target + position, _rounded(turned / one), mask=fits)
    tl.store(token_scale + row, one)
    tl.store(target + before_width + column, _rounded(rotated / one), mask=inside)


@triton.jit
def _rotate(row, block: tl.constexpr, dtype: tl.constexpr):
    """Rotate a row `(block,)` in blocks of 256: a matrix of 16 x 16, along both sides of 16 x 16 numbers."""
    line = tl.arange(0, 16)
    common = line[:, None] & line[None, :]
    common = common ^ (common >> 2)
    common = common ^ (common >> 1)
    matrix = (0.25 - 0.5 * (common & 1)).to(dtype)
    once = tl.dot(tl.reshape(row.to(dtype), (block // 16, 16)), matrix, input_precision="ieee")
    across = tl.permute(tl.reshape(once, (block // 256, 16, 16)), (0, 2, 1))
    twice = tl.dot(tl.reshape(across, (block // 16, 16)).to(dtype), matrix, input_precision="ieee")
    return tl.reshape(tl.permute(tl.reshape(twice, (block // 256, 16, 16)), (0, 2, 1)), (block,))


@triton.jit
def _scale(row):
    """Return a rotated row's scale, not a number if one of its numbers is none."""
    return tl.maximum(tl.max(tl.abs(row), 0) / LARGEST_NUMBER, SMALLEST) + 0.0 * tl.sum(row, 0)


@triton.jit
def _rounded(row):
    return tl.floor(row + 0.5).to(tl.int8)


@triton.jit
def _norm_and_rotate(  # noqa: PLR0913
    first,
    second,
    first_weight,
    second_weight,
    cosine,
    sine,
    result,
    first_count,
    width: tl.constexpr,
    size: tl.constexpr,
    heads: tl.constexpr,
):
    """Norm and rotate some heads of one token, whose columns `(heads, size)` are consecutive."""
    row = tl.program_id(0).to(tl.int64)
    position = tl.arange(0, size)
    head = tl.program_id(1) * heads + tl.arange(0, heads)
    column = head[:, None] * size + position[None, :]
    inside = column < width
    in_first = position < tl.where(row < first_count, size, 0)
    in_second = position < tl.where(row < first_count, 0, size)
    value = _load_row(first, second, row, first_count, width, column)
    weight = tl.load(first_weight + position, mask=in_first, other=0.0).to(tl.float32)
    weight += tl.load(second_weight + position, mask=in_second, other=0.0).to(tl.float32)
    spread = tl.rsqrt(tl.sum(value * value, 1) / size + EPSILON)
    normed = value * spread[:, None] * weight[None, :]
    even, odd = tl.split(tl.reshape(normed, (heads, size // 2, 2)))
    cosines = tl.load(cosine + row * size + position, mask=in_first, other=1.0)
    sines = tl.load(sine + row * size + position, mask=in_first, other=0.0)
    even_cosine, odd_cosine = tl.split(tl.reshape(cosines, (size // 2, 2)))
    even_sine, odd_sine = tl.split(tl.reshape(sines, (size // 2, 2)))
    rotated_even = even * even_cosine[None, :] - odd * even_sine[None, :]
    rotated_odd = odd * odd_cosine[None, :] + even * odd_sine[None, :]
    rotated = tl.reshape(tl.join(rotated_even, rotated_odd), (heads, size))
    tl.store(result + row * width + column, rotated.to(result.dtype.element_ty), mask=inside)


@triton.jit
def _load_row(first, second, row, first_count, width, column):
    """Load a row of two concatenated tensors as float32, with 0 beyond its width."""
    in_first = column < tl.where(row < first_count, width, 0)
    in_second = column < tl.where(row < first_count, 0, width)
    value = tl.load(first + row * width + column, mask=in_first, other=0.0)
    behind = second + (row - first_count) * width + column
    return (value + tl.load(behind, mask=in_second, other=0.0)).to(tl.float32)

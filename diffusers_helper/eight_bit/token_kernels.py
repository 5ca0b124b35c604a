"""The Triton kernels of `tokens.TokenOps`. Importing it needs Triton.

A program holds a whole token (or some of its heads) in registers, so that memory is read once and written
once. Everything is computed in float32. A compiler takes the kernels into its graphs unchanged.
"""

from typing import Any

import torch
import triton
from triton import language as tl

from .tokens import E4M3, LARGEST, NORM_EPSILON, SMALLEST_SCALE, TokenOps, Tokens

ELEMENTS_A_WARP = 2048
"""The elements of a token for each warp, 64 a thread. This and the next two are tuned on an H100 (10 %)."""
MOST_WARPS = 8
HEADS = 16
"""The number of heads in one program."""


def quantize_normed(
    first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> Tokens:
    """Do `tokens.quantize_normed` in one kernel."""
    first, second = first.contiguous(), second.contiguous()
    count, width = first.shape[0] + second.shape[0], first.shape[1]
    tokens = _empty_tokens(first, count, width)
    block = _power_of_2(width)
    kernel: Any = _quantize_normed
    kernel[(count,)](
        first,
        second,
        scale.contiguous(),
        shift.contiguous(),
        tokens.numbers,
        tokens.scale,
        first.shape[0],
        width=width,
        block=block,
        epsilon=NORM_EPSILON,
        largest_number=LARGEST,
        smallest_scale=SMALLEST_SCALE,
        num_warps=_warps(block),
    )
    return tokens


def quantize_activated(before: torch.Tensor, hidden: torch.Tensor) -> Tokens:
    """Do `tokens.quantize_activated` in one kernel."""
    before, hidden = before.contiguous(), hidden.contiguous()
    count, before_width, hidden_width = hidden.shape[0], before.shape[1], hidden.shape[1]
    tokens = _empty_tokens(hidden, count, before_width + hidden_width)
    block = _power_of_2(hidden_width)
    kernel: Any = _quantize_activated
    kernel[(count,)](
        before,
        hidden,
        tokens.numbers,
        tokens.scale,
        before_width=before_width,
        before_block=_power_of_2(before_width),
        hidden_width=hidden_width,
        hidden_block=block,
        largest_number=LARGEST,
        smallest_scale=SMALLEST_SCALE,
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
    """Do `tokens.norm_and_rotate` in one kernel."""
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
        epsilon=NORM_EPSILON,
        num_warps=1,
    )
    return result


KERNELS = TokenOps(quantize_normed, quantize_activated, norm_and_rotate)


def _empty_tokens(like: torch.Tensor, count: int, width: int) -> Tokens:
    numbers = torch.empty(count, width, dtype=E4M3, device=like.device)
    return Tokens(numbers, torch.empty(count, 1, dtype=torch.float32, device=like.device), like.dtype)


def _power_of_2(number: int) -> int:
    """Return the smallest power of 2 that is not less."""
    return 1 << max(number - 1, 0).bit_length()


def _warps(block: int) -> int:
    return min(max(block // ELEMENTS_A_WARP, 1), MOST_WARPS)


@triton.jit
def _quantize_normed(  # noqa: PLR0913  (a kernel gets numbers, no objects)
    first,
    second,
    scale,
    shift,
    numbers,
    token_scale,
    first_count,
    width: tl.constexpr,
    block: tl.constexpr,
    epsilon: tl.constexpr,
    largest_number: tl.constexpr,
    smallest_scale: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    value = _load_row(first, second, row, first_count, width, column)
    away = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    normed = away * tl.rsqrt(tl.sum(away * away, 0) / width + epsilon)
    factor = 1 + tl.load(scale + column, mask=inside, other=0.0).to(tl.float32)
    modulated = normed * factor + tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    one = tl.maximum(tl.max(tl.abs(modulated), 0) / largest_number, smallest_scale)
    tl.store(token_scale + row, one)
    tl.store(numbers + row * width + column, (modulated / one).to(numbers.dtype.element_ty), mask=inside)


@triton.jit
def _quantize_activated(  # noqa: PLR0913
    before,
    hidden,
    numbers,
    token_scale,
    before_width: tl.constexpr,
    before_block: tl.constexpr,
    hidden_width: tl.constexpr,
    hidden_block: tl.constexpr,
    largest_number: tl.constexpr,
    smallest_scale: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    target = numbers + row * (before_width + hidden_width)
    column = tl.arange(0, hidden_block)
    inside = column < hidden_width
    value = tl.load(hidden + row * hidden_width + column, mask=inside, other=0.0).to(tl.float32)
    active = value * tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * value * value))
    position = tl.arange(0, before_block)
    fits = position < before_width
    beside = tl.load(before + row * before_width + position, mask=fits, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(active), 0), tl.max(tl.abs(beside), 0))
    one = tl.maximum(largest / largest_number, smallest_scale)
    tl.store(token_scale + row, one)
    tl.store(target + position, (beside / one).to(numbers.dtype.element_ty), mask=fits)
    tl.store(target + before_width + column, (active / one).to(numbers.dtype.element_ty), mask=inside)


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
    epsilon: tl.constexpr,
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
    spread = tl.rsqrt(tl.sum(value * value, 1) / size + epsilon)
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

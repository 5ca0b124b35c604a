"""The Triton kernel of the int8 product: tiles, scales and bias in one pass. Importing it needs Triton."""

from typing import Any

import torch
import triton
from triton import language as tl

from .tokens import Tokens

ROWS, COLUMNS, DEPTH = tl.constexpr(128), tl.constexpr(128), tl.constexpr(64)
ABREAST = tl.constexpr(8)


def options(major: int) -> dict[str, int]:
    """Return warps and stages for GPUs of a major compute capability.

    Tuned on an H200, whose operands need no registers. Elsewhere 8 warps spill none, and 48 KiB of shared
    memory are less than the 99 of a GeForce.
    """
    return {"num_warps": 4, "num_stages": 5} if major == 9 else {"num_warps": 8, "num_stages": 4}


OPTIONS = options(torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0)


def int8_product_with_scales(
    tokens: Tokens, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Do `linear.Product` for widths that are multiples of 64, scales and bias included, in one kernel."""
    (count, inputs), outputs = tokens.numbers.shape, len(weight)
    result = torch.empty(count, outputs, dtype=tokens.dtype, device=weight.device)
    kernel: Any = _int8_product
    kernel[(triton.cdiv(count, ROWS.value) * triton.cdiv(outputs, COLUMNS.value),)](
        tokens.numbers,
        weight,
        result,
        tokens.scale,
        scale,
        scale if bias is None else bias,
        count,
        outputs=outputs,
        inputs=inputs,
        has_bias=bias is not None,
        **OPTIONS,
    )
    return result


@triton.jit
def _int8_product(  # noqa: PLR0913
    numbers,
    weight,
    result,
    token_scale,
    weight_scale,
    bias,
    count,
    outputs: tl.constexpr,
    inputs: tl.constexpr,
    has_bias: tl.constexpr,
):
    """Compute one tile of the result; tiles that run at a time share rows and columns in the cache."""
    tiles_down, tiles_across = tl.cdiv(count, ROWS), tl.cdiv(outputs, COLUMNS)
    tile, group = tl.program_id(0), ABREAST * tiles_across
    top = tile // group * ABREAST
    height = tl.minimum(tiles_down - top, ABREAST)
    row = (top + tile % group % height) * ROWS + tl.arange(0, ROWS)
    column = tile % group // height * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    left = numbers + (row % count)[:, None].to(tl.int64) * inputs + depth[None, :]
    right = weight + (column % outputs)[None, :].to(tl.int64) * inputs + depth[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for _ in range(0, inputs, DEPTH):
        total = tl.dot(tl.load(left), tl.load(right), total, out_dtype=tl.int32)
        left += DEPTH
        right += DEPTH
    has_row, has_column = row < count, column < outputs
    rows = tl.load(token_scale + row, mask=has_row, other=0.0)
    columns = tl.load(weight_scale + column, mask=has_column, other=0.0)
    whole = total.to(tl.float32) * rows[:, None] * columns[None, :]
    if has_bias:
        whole += tl.load(bias + column, mask=has_column, other=0.0).to(tl.float32)[None, :]
    place = result + row[:, None].to(tl.int64) * outputs + column[None, :]
    tl.store(place, whole.to(result.dtype.element_ty), mask=has_row[:, None] & has_column[None, :])

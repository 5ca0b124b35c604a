"""The kernel that unfolds the VAE decoder's frames in one pass over the memory. Importing it needs Triton."""

from typing import Any

import torch
import triton
from triton import language as tl

from .windows import Activation, WindowSpec

BLOCK = 1024


def unfold_frames_at_once(
    seen: torch.Tensor, spec: WindowSpec, activation: Activation | None
) -> torch.Tensor:
    """Do `windows.UnfoldFrames` on a GPU: read each number once, norm it and write it to its position."""
    _, channels, rows, width = seen.shape
    if seen.stride(1) != 1 or seen.stride(3) != channels:
        seen = seen.contiguous(memory_format=torch.channels_last)
    height = rows + spec.is_top + spec.is_bottom
    window = seen.new_empty(spec.count, height, width + 2, spec.taps * channels)
    line = (width + 2) * spec.taps * channels
    grid = (triton.cdiv(line, BLOCK), height, spec.count)
    kernel: Any = _unfold_frames
    kernel[grid](
        seen,
        seen if activation is None else activation.factor,
        seen if activation is None else activation.summand,
        window,
        len(seen) - spec.count - (spec.taps - 1),
        int(spec.is_top),
        rows,
        width,
        seen.stride(0),
        seen.stride(2),
        channels=channels,
        taps=spec.taps,
        is_normed=activation is not None,
        is_nonlinear=activation is not None and activation.nonlinear,
        block=BLOCK,
    )
    return window.permute(0, 3, 1, 2)


@triton.jit(do_not_specialize=["first", "above", "rows", "width"])
def _unfold_frames(  # noqa: PLR0913  (a kernel gets numbers, no objects)
    seen,
    factor,
    summand,
    window,
    first,
    above,
    rows,
    width,
    frame_stride,
    row_stride,
    channels: tl.constexpr,
    taps: tl.constexpr,
    is_normed: tl.constexpr,
    is_nonlinear: tl.constexpr,
    block: tl.constexpr,
):
    """Write a block of one row of a window, in which the channel changes fastest, then the tap."""
    row, number = tl.program_id(1), tl.program_id(2)
    line = (width + 2) * taps * channels
    position = tl.program_id(0) * block + tl.arange(0, block)
    inside = position < line
    channel, tap = position % channels, position // channels % taps
    column = tl.minimum(tl.maximum(position // (channels * taps) - 1, 0), width - 1)
    from_row = tl.minimum(tl.maximum(row - above, 0), rows - 1)
    from_frame = tl.maximum(first + number + tap, 0).to(tl.int64)
    source = from_frame * frame_stride + from_row.to(tl.int64) * row_stride + column * channels + channel
    value = tl.load(seen + source, mask=inside)
    if is_normed:
        number32 = value.to(tl.float32)
        number32 = number32 * tl.load(factor + channel) + tl.load(summand + channel)
        if is_nonlinear:
            number32 = number32 * tl.sigmoid(number32)
        value = number32.to(window.dtype.element_ty)
    height = tl.num_programs(1)
    target = (number.to(tl.int64) * height + row) * line + position
    tl.store(window + target, value, mask=inside)

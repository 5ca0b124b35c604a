"""The input of a causal convolution in the VAE's decoder: frames side by side, normed, with padded edges.

Here it is made in PyTorch's operations, in seven passes over the memory; `window_kernel.py` makes one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """A norm as a factor and a summand for each channel, float32 `(c, 1, 1)`, followed by SiLU."""

    factor: torch.Tensor
    summand: torch.Tensor
    nonlinear: bool = True

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        result = torch.addcmul(self.summand, frames, self.factor, out=torch.empty_like(frames))
        return functional.silu(result, inplace=True) if self.nonlinear else result


@dataclass(frozen=True)
class WindowSpec:
    """The window to unfold: `count` new frames, `taps` side by side, and which edges are the picture's."""

    count: int
    taps: int
    is_top: bool
    is_bottom: bool


UnfoldFrames = Callable[[torch.Tensor, WindowSpec, Activation | None], torch.Tensor]
"""The function that unfolds frames `(n, c, r, w)` to `(count, taps * c, rows + 2, w + 2)`, channels last.

They end with the new frames; the past ones come before them, and the first is repeated in front. It has a
row more above and below, except at the picture's edges: there, as left and right, the edge is repeated.
"""


def unfold_frames(seen: torch.Tensor, spec: WindowSpec, activation: Activation | None) -> torch.Tensor:
    """Do `UnfoldFrames` in PyTorch's operations."""
    _, channels, rows, width = seen.shape
    active = seen if activation is None else activation(seen)
    height = rows + spec.is_top + spec.is_bottom
    window = seen.new_empty(spec.count, height, width + 2, spec.taps, channels)
    inner = window[:, int(spec.is_top) : rows + spec.is_top, 1:-1]
    for tap in range(spec.taps):
        begin = len(seen) - spec.count - (spec.taps - 1) + tap  # that of the first new frame
        repeated = max(-begin, 0)
        inner[:repeated, :, :, tap] = active[0].permute(1, 2, 0)
        inner[repeated:, :, :, tap] = active[begin + repeated : begin + spec.count].permute(0, 2, 3, 1)
    if spec.is_top:
        window[:, 0] = window[:, 1]
    if spec.is_bottom:
        window[:, -1] = window[:, -2]
    window[:, :, 0], window[:, :, -1] = window[:, :, 1], window[:, :, -2]
    return window.flatten(3).permute(0, 3, 1, 2)

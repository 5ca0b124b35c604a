"""What a causal convolution of the VAE's decoder looks at: frames side by side, normed, with their edges.

Two ways to the same numbers: torch's own operations, seven passes over the memory, and where Triton is there
a kernel that makes one. Whatever Triton does, the decoder works, and says nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from ..kernels import triton_or_torch

TRIAL_ERROR = 2e-3
"""The most that the kernel may be away from torch's own float16 numbers, relatively."""


@dataclass(frozen=True)
class Activation:
    """What a norm does to each channel, float32 `(c, 1, 1)`, and SiLU behind it."""

    factor: torch.Tensor
    summand: torch.Tensor
    nonlinear: bool = True

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        result = torch.addcmul(self.summand, frames, self.factor, out=torch.empty_like(frames))
        return functional.silu(result, inplace=True) if self.nonlinear else result


@dataclass(frozen=True)
class WindowSpec:
    """A piece of maps: `count` new frames, `taps` of them side by side, and where the picture ends."""

    count: int
    taps: int
    is_top: bool
    is_bottom: bool


UnfoldFrames = Callable[[torch.Tensor, WindowSpec, Activation | None], torch.Tensor]
"""Makes `(count, taps * c, rows + 2, w + 2)`, channels last, of frames `seen` `(n, c, r, w)`.

`seen` ends with the new frames; before them come those of the past, and before the first one lies the first
one again. It has a row more above and below, except where the picture ends: there, as left and right, the
edge is repeated.
"""


def unfold_frames(seen: torch.Tensor, cut: WindowSpec, activation: Activation | None) -> torch.Tensor:
    """`UnfoldFrames` in torch's own operations."""
    _, channels, rows, width = seen.shape
    active = seen if activation is None else activation(seen)
    height = rows + cut.is_top + cut.is_bottom
    window = seen.new_empty(cut.count, height, width + 2, cut.taps, channels)
    inner = window[:, int(cut.is_top) : rows + cut.is_top, 1:-1]
    first = len(seen) - cut.count - (cut.taps - 1)
    for number in range(cut.count):
        for tap in range(cut.taps):
            inner[number, :, :, tap] = active[max(first + number + tap, 0)].permute(1, 2, 0)
    if cut.is_top:
        window[:, 0] = window[:, 1]
    if cut.is_bottom:
        window[:, -1] = window[:, -2]
    window[:, :, 0], window[:, :, -1] = window[:, :, 1], window[:, :, -2]
    return window.flatten(3).permute(0, 3, 1, 2)


@cache
def choose_unfold_frames(device: torch.device) -> UnfoldFrames:
    """The fastest way on a device, decided once: the kernel only after it has made a window right."""
    own: UnfoldFrames = unfold_frames
    return triton_or_torch(own, _load_kernel, _try_out, device)


def _load_kernel() -> UnfoldFrames:
    from .window_kernel import unfold_frames_at_once

    return unfold_frames_at_once


def _try_out(way: UnfoldFrames, device: torch.device) -> None:
    """Raises ArithmeticError where a window is not what it must be."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    seen = randn(3, 5, 7, 32).half().permute(0, 3, 1, 2)
    activation = Activation(randn(32, 1, 1), randn(32, 1, 1))
    arguments: tuple[Any, ...] = (seen, WindowSpec(2, 3, is_top=True, is_bottom=False), activation)
    found, wanted = way(*arguments).float(), unfold_frames(*arguments).float()
    error = float((found - wanted).norm() / wanted.norm())
    if not error < TRIAL_ERROR:
        raise ArithmeticError(f"a window is wrong by {error:.3g}")

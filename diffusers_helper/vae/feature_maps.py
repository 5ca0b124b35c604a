"""The VAE decoder's feature maps and convolutions: frames with the channels last, read in strips of rows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn import functional

from ..kernels import compiles
from .windows import Activation, UnfoldFrames, WindowSpec, unfold_frames

STRIP_BYTES = {"cuda": 96 * 2**20, "cpu": 24 * 2**20}
"""Bytes of one convolution's input, frames side by side: enough to keep a GPU busy and to compute few rows
twice; on a CPU few enough for its caches."""
LARGEST_PIECE = 2**31 - 1
"""The most numbers that a GPU's statistics are fast for: more have no 32-bit index."""
TAPS = 3
"""The frames of a causal convolution: the present one and two earlier; the first is repeated at the start."""
SELF_TEST_TOLERANCE = 2e-3
"""The largest relative error of the kernel against PyTorch's float16 numbers."""


class FeatureBuffers:
    """Memory for a window's two largest maps, kept for the next window.

    The allocator would put small tensors that stay into the gap that a map leaves, and then lack room for the
    next map; or free all of it and allocate it again, which takes a fifth of the decoding time (measured).
    """

    COUNT = 2
    SMALLEST_PART = 4
    """The fraction of a buffer that a map must fill to get it."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self.num_bytes = num_bytes
        self._pieces = [torch.empty(num_bytes, dtype=torch.uint8, device=device) for _ in range(self.COUNT)]
        self._users: WeakValueDictionary[int, StoredMap] = WeakValueDictionary()

    def make(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> "StoredMap | None":
        """Return a map of `shape` `(t, h, w, c)` in a free buffer, or None. The buffer is free again when the
        `StoredMap` is gone; its `values` alone do not hold it."""
        size = prod(shape) * dtype.itemsize
        if not self.num_bytes <= self.SMALLEST_PART * size <= self.SMALLEST_PART * self.num_bytes:
            return None
        for number, piece in enumerate(self._pieces):
            if number not in self._users:
                maps = StoredMap(piece[:size].view(dtype).view(shape).permute(0, 3, 1, 2), self)
                self._users[number] = maps
                return maps
        return None


class FeatureMap(ABC):
    """A window's feature map, read in strips of rows. `shape` is frames, channels, height, width."""

    shape: tuple[int, int, int, int]
    example: torch.Tensor
    """A tensor of the map's device and dtype."""
    buffers: FeatureBuffers | None
    strip_divisor = 1.0
    """The factor by which strips are smaller where computing a row needs memory, too."""

    @abstractmethod
    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Return rows `(t, c, bottom - top, w)`, channels last."""

    def pieces(self) -> Iterator[torch.Tensor]:
        """Yield all rows, in as few pieces as the memory allows."""
        return (self.rows(strip.start, strip.stop) for strip in self.strips(strip_divisor=1))

    def empty(self, channels: int) -> "StoredMap":
        """Return an uninitialized map of the same size."""
        count, _, height, width = self.shape
        shape = count, height, width, channels
        made = None if self.buffers is None else self.buffers.make(shape, self.example.dtype)
        return made or StoredMap(self.example.new_empty(shape).permute(0, 3, 1, 2), self.buffers)

    def strips(self, strip_divisor: float | None = None) -> Iterator[range]:
        """Yield strips of rows from top to bottom, of an even number of rows if there are several strips."""
        count, channels, height, width = self.shape
        row = count * channels * width * TAPS * self.example.element_size()
        most = STRIP_BYTES[self.example.device.type] / (strip_divisor or self.strip_divisor)
        fitting = max(int(most / row), 1)
        rows = -(-height // -(-height // fitting))  # all of about the same height
        rows = height if rows >= height else rows + rows % 2
        return (range(top, min(top + rows, height)) for top in range(0, height, rows))


class StoredMap(FeatureMap):
    """A map in memory: `values` `(t, c, h, w)`, channels last."""

    def __init__(self, values: torch.Tensor, buffers: FeatureBuffers | None = None) -> None:
        count, channels, height, width = values.shape
        self.shape = (count, channels, height, width)
        self.values = self.example = values
        self.buffers = buffers

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        return self.values[:, :, top:bottom]

    def pieces(self) -> Iterator[torch.Tensor]:
        most = max(LARGEST_PIECE // self.values[0].numel(), 1)
        return iter(self.values.split(most))


class LazyUpsample(FeatureMap):
    """A map that is computed from a smaller one whenever its rows are read."""

    strip_divisor = 1 + 1 / TAPS

    def __init__(self, source: StoredMap, conv: "UpsamplingConv") -> None:
        count, _, height, width = source.shape
        count = 2 * count - 1 if conv.doubles_time else count
        self.shape = (count, conv.channels, 2 * height, 2 * width)
        self.example, self.buffers = source.values, source.buffers
        self._source = source
        self._conv = conv
        self._newest: tuple[range, torch.Tensor] | None = None
        """The rows of the source that were read last, and their result `(t, 2 * rows, w, c)`."""

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Return the rows; those shared with the strip read before are not computed again."""
        count, channels, height, width = self.shape
        wanted = range(top // 2, -(-bottom // 2))
        rows = self.example.new_empty(count, 2 * len(wanted), width, channels)
        known = 0
        if self._newest is not None and wanted.start in self._newest[0]:
            there, newest = self._newest
            begin, known = wanted.start - there.start, min(there.stop, wanted.stop) - wanted.start
            rows[:, : 2 * known] = newest[:, 2 * begin : 2 * (begin + known)]
        if known < len(wanted):
            self._conv(self._source.values, wanted.start + known, wanted.stop, rows[:, 2 * known :])
        self._newest = None if bottom == height else (wanted, rows)
        return rows.permute(0, 3, 1, 2)[:, :, top - 2 * wanted.start : bottom - 2 * wanted.start]

    def stored(self) -> StoredMap:
        """Return the whole map, computed once."""
        maps, source = self.empty(self.shape[1]), self._source.values
        for strip in self.strips():
            rows = maps.values[:, :, strip.start : strip.stop].permute(0, 2, 3, 1)
            self._conv(source, strip.start // 2, -(-strip.stop // 2), rows)
        return maps


@dataclass(frozen=True)
class Strip:
    """A strip of a convolution's result without its bias, with the input rows that it was computed from."""

    rows: slice
    result: torch.Tensor
    bias: torch.Tensor
    source: torch.Tensor

    def view_of(self, maps: StoredMap) -> torch.Tensor:
        """Return this strip's rows of a map."""
        return maps.values[:, :, self.rows]

    def put_into(self, maps: StoredMap) -> None:
        torch.add(self.result, self.bias, out=self.view_of(maps))

    def add_to(self, maps: StoredMap) -> None:
        self.view_of(maps).add_(self.result.add_(self.bias))


class Conv(nn.Module):
    """The counterpart of diffusers' HunyuanVideoCausalConv3d: a 2-D convolution of frames side by side."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, causal: Any) -> None:
        super().__init__()
        weight = causal.conv.weight.detach()
        self.channels = weight.shape[0]
        self.register_buffer("weight", channels_last(weight.permute(0, 2, 1, 3, 4).flatten(1, 2)))
        self.register_buffer("bias", causal.conv.bias.detach()[:, None, None])  # added with the next pass


class CausalConv(Conv):
    """The convolution of kernel 3: edges repeated, two frames of the past."""

    def forward(self, maps: FeatureMap, activation: Activation | None = None) -> StoredMap:
        """Convolve the whole map, after the activation."""
        result = maps.empty(self.channels)
        for strip in self.strips(maps, activation):
            strip.put_into(result)
        return result

    def strips(self, maps: FeatureMap, activation: Activation | None = None) -> Iterator[Strip]:
        """Yield the convolution strip by strip."""
        height = maps.shape[2]
        unfold = choose_unfold_frames(self.weight.device)
        for strip in maps.strips():
            top, bottom = max(strip.start - 1, 0), min(strip.stop + 1, height)
            seen = maps.rows(top, bottom)
            spec = WindowSpec(len(seen), TAPS, strip.start == top, strip.stop == bottom)
            result = functional.conv2d(unfold(seen, spec, activation), self.weight)
            source = seen[:, :, strip.start - top : strip.stop - top]
            yield Strip(slice(strip.start, strip.stop), result, self.bias, source)


class PointConv(Conv):
    """The convolution of kernel 1: the same product at every pixel."""

    def forward(self, frames: torch.Tensor, result: torch.Tensor) -> None:
        """Fill `(t, c, r, w)`."""
        torch.add(functional.conv2d(frames, self.weight), self.bias, out=result)


class UpsamplingConv(nn.Module):
    """The counterpart of diffusers' HunyuanVideoUpsampleCausal3D: each pixel becomes 2 x 2 and, if it doubles
    time, each frame but the first becomes two; a convolution of kernel 3 follows."""

    bias: torch.Tensor

    def __init__(self, upsampler: Any) -> None:
        super().__init__()
        conv = upsampler.conv.conv
        self.doubles_time = int(upsampler.upsample_factor[0]) == 2
        self.channels = conv.weight.shape[0]
        self.register_buffer("bias", conv.bias.detach())
        first, second, third = conv.weight.detach().float().unbind(2)
        by_parity: list[tuple[torch.Tensor, ...]] = [(first, second, third)]
        if self.doubles_time:  # an even frame repeats the one before it, an odd one is new
            by_parity = [(first, second + third), (first + second, third)]
        for parity, taps in enumerate(by_parity):
            rows = [_fold(torch.cat(taps, 1), 2, row) for row in (0, 1)]
            corners = [_fold(row, 3, column) for row in rows for column in (0, 1)]
            weight = torch.cat(corners).to(conv.weight.dtype)
            self.register_buffer(f"weight_{parity}", channels_last(weight))

    def forward(self, source: torch.Tensor, top: int, bottom: int, result: torch.Tensor) -> None:
        """Fill the result `(frames, 2 * (bottom - top), 2 * width, channels)` of rows `top` to
        `bottom` of the source."""
        count, _, height, _ = source.shape
        seen = source[:, :, max(top - 1, 0) : min(bottom + 1, height)]
        spec = partial(WindowSpec, is_top=top == 0, is_bottom=bottom == height)
        if not self.doubles_time:
            self._convolve(seen, spec(count, TAPS), 0, result)
        else:
            self._convolve(seen, spec(count, TAPS - 1), 0, result[0::2])
            if count > 1:
                self._convolve(seen, spec(count - 1, TAPS - 1), 1, result[1::2])

    def _convolve(self, seen: torch.Tensor, spec: WindowSpec, parity: int, result: torch.Tensor) -> None:
        """Fill frames `(n, rows, columns, channels)` of the result."""
        window = choose_unfold_frames(seen.device)(seen, spec, None)
        corners = channels_last(functional.conv2d(window, self.get_buffer(f"weight_{parity}")))
        # Corner (row, column) of each pixel lies as many pixels further down and to the right.
        frame, _, down, right = corners.stride()
        rows, columns = (side // 2 for side in result.shape[1:3])
        moved = corners.as_strided(
            (spec.count, rows, 2, columns, 2, self.channels),
            (frame, down, down + 2 * self.channels, right, right + self.channels, 1),
        )
        torch.add(moved, self.bias, out=result.unflatten(2, (columns, 2)).unflatten(1, (rows, 2)))


def _fold(weight: torch.Tensor, dim: int, parity: int) -> torch.Tensor:
    """Add up two of three weights along a side: on a doubled picture they meet the same pixel."""
    first, second, third = weight.unbind(dim)
    return torch.stack([first + second, third] if parity else [first, second + third], dim)


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


@cache
def choose_unfold_frames(device: torch.device) -> UnfoldFrames:
    """Return our kernel where Triton is and it is right, else PyTorch's operations; chosen once."""
    if device.type != "cuda":
        return unfold_frames
    expected = _sample(unfold_frames, device)
    works = compiles("unfolding kernel", lambda: _sample(_kernel, device), expected, SELF_TEST_TOLERANCE)
    return _kernel if works else unfold_frames


def _kernel(seen: torch.Tensor, spec: WindowSpec, activation: Activation | None) -> torch.Tensor:
    """Do `UnfoldFrames` by our kernel. Raises ImportError where Triton is not."""
    from .window_kernel import unfold_frames_at_once

    return unfold_frames_at_once(seen, spec, activation)


def _sample(unfold: UnfoldFrames, device: torch.device) -> list[torch.Tensor]:
    """Unfold random frames."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    seen = randn(3, 5, 7, 32).half().permute(0, 3, 1, 2)
    activation = Activation(randn(32, 1, 1), randn(32, 1, 1))
    return [unfold(seen, WindowSpec(2, 3, is_top=True, is_bottom=False), activation)]

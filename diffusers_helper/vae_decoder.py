"""The VAE's decoder: diffusers' layers and numbers, in a fifth of the memory and of the time.

Knows one window of frames and nothing of tiles or of how windows are joined; diffusers' `vae.decode` does
that, with this module in the place of its `decoder`. What is different:

- Feature maps lie as frames with the channels last, `(t, c, h, w)`. A 3-D convolution is one 2-D convolution
  over three frames side by side in the channels, for which cuDNN's kernels are up to twice as fast.
- A layer computes a piece (a few frames, a strip of rows) at a time and carries the last two frames of the
  piece before, all that a causal convolution sees of the past. GroupNorm's statistics are taken over the
  whole window first, so that pieces change nothing.
- Doubling a picture and convolving it is one step: of the nine places of a kernel on a doubled picture only
  four hold different pixels, so the weights of the others are added up beforehand.
- The largest map, the doubled picture with which the last level begins, is never stored but computed twice.
- In the attention every frame sees those before it: frame by frame, without a mask of tokens x tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

PIECE_BYTES = {"cuda": 160 * 2**20, "cpu": 8 * 2**20}
"""About how large the input of one convolution is, frames side by side: large enough to keep a card busy; on
a CPU small enough for its caches."""
TAPS = 3
"""Frames that a convolution sees: its own and two before; before the first one lies the first one."""

Activation = Callable[[torch.Tensor], torch.Tensor]


class Maps(ABC):
    """Feature maps of a window, read in strips of rows. `shape` is frames, channels, height, width."""

    shape: tuple[int, int, int, int]
    example: torch.Tensor
    """Has the maps' device and dtype."""

    @abstractmethod
    def rows(self, frames: slice, top: int, bottom: int) -> torch.Tensor:
        """Rows `(n, c, bottom - top, w)` of some frames, channels last."""

    def empty(self, channels: int) -> torch.Tensor:
        """Room for other maps of the same size."""
        count, _, height, width = self.shape
        return self.example.new_empty(count, height, width, channels).permute(0, 3, 1, 2)

    def strips(self, taps: int = 1) -> Iterator[tuple[range, Iterator[slice]]]:
        """Cut into pieces: strips of rows from top to bottom, and for each its frames from first to last.

        Args:
            taps: how many frames side by side are to fit into `PIECE_BYTES`.
        """
        count, channels, height, width = self.shape
        row = width * channels * taps * self.example.element_size()
        fitting = max(PIECE_BYTES[self.example.device.type] // row, 1)
        rows = -(-height // -(-height // fitting))  # strips of about the same height
        step = max(fitting // height, 1)
        for top in range(0, height, rows):
            frames = (slice(first, min(first + step, count)) for first in range(0, count, step))
            yield range(top, min(top + rows, height)), frames


class Stored(Maps):
    """Maps that lie in memory: `values` `(t, c, h, w)`, channels last."""

    def __init__(self, values: torch.Tensor) -> None:
        count, channels, height, width = values.shape
        self.shape = (count, channels, height, width)
        self.values = self.example = values

    def rows(self, frames: slice, top: int, bottom: int) -> torch.Tensor:
        return self.values[frames, :, top:bottom]


class Upsampled(Maps):
    """Maps that are computed from smaller ones whenever they are read."""

    def __init__(self, source: torch.Tensor, conv: "UpsamplingConv") -> None:
        count, _, height, width = source.shape
        self.shape = (2 * count - 1 if conv.doubles_time else count, conv.channels, 2 * height, 2 * width)
        self.example = self._source = source
        self._conv = conv

    def rows(self, frames: slice, top: int, bottom: int) -> torch.Tensor:
        above, below = top // 2, -(-bottom // 2)
        inside = slice(top - 2 * above, bottom - 2 * above)
        wanted = range(self.shape[0])[frames]
        return torch.cat([self._conv(self._source, frame, above, below)[:, :, inside] for frame in wanted])

    def stored(self) -> Stored:
        """All of them, computed once."""
        values = self.empty(self.shape[1])
        for strip, pieces in self.strips():
            for frames in pieces:
                values[frames, :, strip.start : strip.stop] = self.rows(frames, strip.start, strip.stop)
        return Stored(values)


@dataclass(frozen=True)
class Piece:
    """A piece of a convolution's result, what was there before it, and where both lie."""

    frames: slice
    rows: slice
    result: torch.Tensor
    source: torch.Tensor

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """This piece of `(t, c, h, w)`."""
        return maps[self.frames, :, self.rows]


class WindowDecoder(nn.Module):
    """Takes the place of `AutoencoderKLHunyuanVideo.decoder`, whose weights it takes over, rearranged."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        middle = decoder.mid_block
        self.conv_in = CausalConv(decoder.conv_in)
        self.resnet_in = ResnetBlock(middle.resnets[0])
        self.middle = nn.ModuleList()
        for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            self.middle.extend([] if attention is None else [FrameAttention(attention)])
            self.middle.append(ResnetBlock(resnet))
        last = max(n for n, block in enumerate(decoder.up_blocks) if block.upsamplers is not None)
        self.levels = nn.ModuleList(
            Level(block, stores=number < last) for number, block in enumerate(decoder.up_blocks)
        )
        self.norm_out = Norm(decoder.conv_norm_out)
        self.conv_out = CausalConv(decoder.conv_out)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `(1, c, t, h, w)` to pixels `(1, 3, 4t - 3, 8h, 8w)`."""
        frames = Stored(latents[0].transpose(0, 1).contiguous(memory_format=torch.channels_last))
        maps: Maps = self.resnet_in(self.conv_in(frames))
        for layer in (*self.middle, *self.levels):
            maps = layer(maps)
        pixels = self.conv_out(maps, self.norm_out.activation(maps)).values
        return pixels.transpose(0, 1)[None]


class Level(nn.Module):
    """diffusers' HunyuanVideoUpBlock3D. Where it does not store its doubled maps, they are computed twice."""

    def __init__(self, block: Any, stores: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(resnet) for resnet in block.resnets)
        self.upsampler = None if block.upsamplers is None else UpsamplingConv(block.upsamplers[0])
        self._stores = stores

    def forward(self, maps: Maps) -> Maps:
        for resnet in self.resnets:
            maps = resnet(maps)
        if self.upsampler is None:
            return maps
        assert isinstance(maps, Stored)
        upsampled = Upsampled(maps.values, self.upsampler)
        return upsampled.stored() if self._stores else upsampled


class CausalConv(nn.Module):
    """diffusers' HunyuanVideoCausalConv3d of kernel 3: edges repeated, two frames of the past."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, causal: Any) -> None:
        super().__init__()
        weight = causal.conv.weight.detach()
        self.channels = weight.shape[0]
        self.register_buffer("weight", channels_last(weight.permute(0, 2, 1, 3, 4).flatten(1, 2)))
        self.register_buffer("bias", causal.conv.bias.detach())

    def forward(self, maps: Maps, activation: Activation | None = None) -> Stored:
        """Convolve all maps, after the activation."""
        values = maps.empty(self.channels)
        for piece in self.pieces(maps, activation):
            piece.of(values).copy_(piece.result)
        return Stored(values)

    def pieces(self, maps: Maps, activation: Activation | None = None) -> Iterator[Piece]:
        """Convolve piece by piece; each may be written over what lies under it as soon as it is there."""
        height = maps.shape[2]
        for strip, all_frames in maps.strips(TAPS):
            top, bottom = max(strip.start - 1, 0), min(strip.stop + 1, height)
            past: list[torch.Tensor] = []
            for frames in all_frames:
                source = maps.rows(frames, top, bottom)
                active = source if activation is None else activation(source)
                seen = [*(past or [active[0]] * (TAPS - 1)), *active]
                past = seen[1 - TAPS :]
                window = side_by_side(seen, TAPS, strip.start == top, strip.stop == bottom)
                result = functional.conv2d(window, self.weight, self.bias)
                inner = source[:, :, strip.start - top : strip.stop - top]
                yield Piece(frames, slice(strip.start, strip.stop), result, inner)


class PointConv(nn.Module):
    """diffusers' HunyuanVideoCausalConv3d of kernel 1: the same product at every pixel."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, causal: Any) -> None:
        super().__init__()
        weight = causal.conv.weight.detach()
        self.channels = weight.shape[0]
        self.register_buffer("weight", channels_last(weight[:, :, 0]))
        self.register_buffer("bias", causal.conv.bias.detach())

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(frames, self.weight, self.bias)


class UpsamplingConv(nn.Module):
    """diffusers' HunyuanVideoUpsampleCausal3D: each pixel becomes 2 x 2, each frame but the first two frames
    (where time is doubled, too), then comes a convolution of kernel 3."""

    bias: torch.Tensor

    def __init__(self, upsampler: Any) -> None:
        super().__init__()
        conv = upsampler.conv.conv
        self.doubles_time = int(upsampler.upsample_factor[0]) == 2
        self.channels = conv.weight.shape[0]
        self.register_buffer("bias", conv.bias.detach().repeat(4))
        first, second, third = conv.weight.detach().float().unbind(2)
        by_parity: list[tuple[torch.Tensor, ...]] = [(first, second, third)] * 2
        if self.doubles_time:  # an even frame repeats the one before it, an odd one is new
            by_parity = [(first, second + third), (first + second, third)]
        for parity, taps in enumerate(by_parity):
            rows = [_fold(torch.cat(taps, 1), 2, row) for row in (0, 1)]
            corners = [_fold(row, 3, column) for row in rows for column in (0, 1)]
            weight = torch.cat(corners).to(conv.weight.dtype)
            self.register_buffer(f"weight_{parity}", channels_last(weight))

    def forward(self, source: torch.Tensor, frame: int, top: int, bottom: int) -> torch.Tensor:
        """Frame number `frame` of the result, as far as it lies over source rows `top` to `bottom`:
        `(1, channels, 2 * (bottom - top), 2 * width)`."""
        newest = -(-frame // 2) if self.doubles_time else frame
        taps = TAPS - 1 if self.doubles_time else TAPS
        height = source.shape[2]
        outer = slice(max(top - 1, 0), min(bottom + 1, height))
        seen = [source[max(newest - back, 0), :, outer] for back in reversed(range(taps))]
        window = side_by_side(seen, taps, top == 0, bottom == height)
        weight = self.get_buffer(f"weight_{frame % 2}")
        corners = functional.conv2d(window, weight, self.bias).unflatten(1, (2, 2, self.channels))
        rows, columns = bottom - top, source.shape[3]
        result = source.new_empty(rows, 2, columns, 2, self.channels)
        for row in (0, 1):
            for column in (0, 1):
                corner = corners[0, row, column, :, row : row + rows, column : column + columns]
                result[:, row, :, column] = corner.permute(1, 2, 0)
        return result.flatten(2, 3).flatten(0, 1).permute(2, 0, 1)[None]


def _fold(weight: torch.Tensor, dim: int, parity: int) -> torch.Tensor:
    """Three places along a side of a doubled picture are two of the picture itself: add up two of them."""
    first, second, third = weight.unbind(dim)
    return torch.stack([first + second, third] if parity else [first, second + third], dim)


class Norm(nn.Module):
    """A GroupNorm over all frames of a window."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().double())
        self.register_buffer("bias", norm.bias.detach().double())
        self._groups, self._eps = norm.num_groups, norm.eps

    def activation(self, maps: Maps, nonlinear: bool = True) -> Activation:
        """The norm of these maps, and SiLU behind it, for pieces of them."""
        factor, summand = self._affine(maps)

        def activate(piece: torch.Tensor) -> torch.Tensor:
            result = torch.addcmul(summand, piece, factor, out=torch.empty_like(piece))
            return functional.silu(result, inplace=True) if nonlinear else result

        return activate

    def _affine(self, maps: Maps) -> tuple[torch.Tensor, torch.Tensor]:
        """What the norm does to each channel: a factor and a summand, float32 `(c, 1, 1)`."""
        count, channels, height, width = maps.shape
        total, squares = torch.zeros(2, channels, dtype=torch.float64, device=maps.example.device)
        for strip, all_frames in maps.strips():
            for frames in all_frames:
                pixels = maps.rows(frames, strip.start, strip.stop)
                total += pixels.sum(3, dtype=torch.float32).sum((0, 2), dtype=torch.float64)
                norms = torch.linalg.vector_norm(pixels, 2, 3, dtype=torch.float32)
                squares += norms.square().sum((0, 2), dtype=torch.float64)
        size = count * height * width * channels // self._groups
        mean, square = (sums.view(self._groups, -1).sum(1) / size for sums in (total, squares))
        deviation = ((square - mean.square()).clamp(min=0) + self._eps).sqrt()
        mean, deviation = (each.repeat_interleave(channels // self._groups) for each in (mean, deviation))
        factor = self.weight / deviation
        return factor.float()[:, None, None], (self.bias - mean * factor).float()[:, None, None]


class ResnetBlock(nn.Module):
    """diffusers' HunyuanVideoResnetBlockCausal3D. The maps that it gets may be overwritten."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(resnet.norm1), Norm(resnet.norm2)
        self.conv1, self.conv2 = CausalConv(resnet.conv1), CausalConv(resnet.conv2)
        self.shortcut = None if resnet.conv_shortcut is None else PointConv(resnet.conv_shortcut)

    def forward(self, maps: Maps) -> Stored:
        hidden, result = self._first_half(maps)
        for piece in self.conv2.pieces(hidden, self.norm2.activation(hidden)):
            piece.of(result.values).add_(piece.result)
        return result

    def _first_half(self, maps: Maps) -> tuple[Stored, Stored]:
        """The first convolution, and what the second one's result is added to."""
        if self.shortcut is None:
            assert isinstance(maps, Stored)
            return self.conv1(maps, self.norm1.activation(maps)), maps
        hidden, residual = maps.empty(self.conv1.channels), maps.empty(self.shortcut.channels)
        for piece in self.conv1.pieces(maps, self.norm1.activation(maps)):
            piece.of(hidden).copy_(piece.result)
            piece.of(residual).copy_(self.shortcut(piece.source))
        return Stored(hidden), Stored(residual)


class FrameAttention(nn.Module):
    """The middle's attention: each frame over all pixels of itself and of the frames before it."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.norm = Norm(attention.group_norm)
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]
        self._heads = attention.heads

    def forward(self, maps: Stored) -> Stored:
        count, channels, height, width = maps.shape
        normed = self.norm.activation(maps, nonlinear=False)(maps.values)
        tokens = normed.permute(0, 2, 3, 1).reshape(1, -1, channels)
        query, key, value = (
            project(tokens).unflatten(2, (self._heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        size = height * width
        for frame in range(count):
            end = (frame + 1) * size
            own, past = query[:, :, end - size : end], (key[:, :, :end], value[:, :, :end])
            seen = functional.scaled_dot_product_attention(own, *past)
            result = self.to_out(seen.transpose(1, 2).flatten(2)).view(height, width, channels)
            maps.values[frame].add_(result.permute(2, 0, 1))
        return maps


def side_by_side(frames: Sequence[torch.Tensor], taps: int, is_top: bool, is_bottom: bool) -> torch.Tensor:
    """Put `taps` frames after one another side by side in the channels, with their edges repeated.

    Args:
        frames: `(c, rows, w)`; with a row more above and below, except at the picture's `top` and `bottom`.

    Returns:
        `(len(frames) - taps + 1, taps * c, rows + 2, w + 2)`, channels last.
    """
    channels, rows, width = frames[0].shape
    count = len(frames) - taps + 1
    window = frames[0].new_empty(count, rows + is_top + is_bottom, width + 2, taps, channels)
    inner = window[:, int(is_top) : rows + is_top, 1:-1]
    for number in range(count):
        for tap in range(taps):
            inner[number, :, :, tap] = frames[number + tap].permute(1, 2, 0)
    if is_top:
        window[:, 0] = window[:, 1]
    if is_bottom:
        window[:, -1] = window[:, -2]
    window[:, :, 0], window[:, :, -1] = window[:, :, 1], window[:, :, -2]
    return window.flatten(3).permute(0, 3, 1, 2)


def channels_last(weight: torch.Tensor) -> torch.Tensor:
    return weight.contiguous(memory_format=torch.channels_last)

"""The VAE's decoder: diffusers' layers and numbers, in a fifth of the memory and of the time.

Knows one window of frames and nothing of tiles or of how windows are joined; diffusers' `vae.decode` does
that, with this module in the place of its `decoder`. What is different:

- Feature maps lie as frames with the channels last, `(t, c, h, w)`. A 3-D convolution is one 2-D convolution
  over three frames side by side in the channels, for which cuDNN's kernels are up to twice as fast.
- A layer computes a strip of rows at a time. GroupNorm's statistics are taken over the whole window first, so
  that strips change nothing.
- Doubling a picture and convolving it is one step: of the nine places of a kernel on a doubled picture only
  four hold different pixels, so the weights of the others are added up beforehand.
- The largest map, the doubled picture with which the last level begins, is never stored but computed twice.
- In the attention every frame sees those before it: frame by frame, without a mask of tokens x tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .vae_windows import Activation, Cut, choose_make_window

STRIP_BYTES = {"cuda": 96 * 2**20, "cpu": 8 * 2**20}
"""About how large the input of one convolution is, frames side by side: large enough to keep a card busy, and
to compute few rows twice; on a CPU small enough for its caches."""
STATISTICS_EPS = 1e-6
TAPS = 3
"""Frames that a convolution sees: its own and two before; before the first one lies the first one."""


class Maps(ABC):
    """Feature maps of a window, read in strips of rows. `shape` is frames, channels, height, width."""

    shape: tuple[int, int, int, int]
    example: torch.Tensor
    """Has the maps' device and dtype."""
    smaller = 1
    """So many times smaller strips are to be, because reading one takes memory, too."""

    @abstractmethod
    def rows(self, top: int, bottom: int) -> torch.Tensor:
        """Rows `(t, c, bottom - top, w)`, channels last."""

    def empty(self, channels: int) -> torch.Tensor:
        """Room for other maps of the same size."""
        count, _, height, width = self.shape
        return self.example.new_empty(count, height, width, channels).permute(0, 3, 1, 2)

    def strips(self) -> Iterator[range]:
        """Strips of rows from top to bottom, of an even number where there are several."""
        count, channels, height, width = self.shape
        row = count * channels * width * TAPS * self.example.element_size()
        fitting = max(STRIP_BYTES[self.example.device.type] // self.smaller // row, 1)
        rows = -(-height // -(-height // fitting))  # all of about the same height
        rows = height if rows >= height else rows + rows % 2
        return (range(top, min(top + rows, height)) for top in range(0, height, rows))


class Stored(Maps):
    """Maps that lie in memory: `values` `(t, c, h, w)`, channels last."""

    def __init__(self, values: torch.Tensor) -> None:
        count, channels, height, width = values.shape
        self.shape = (count, channels, height, width)
        self.values = self.example = values

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        return self.values[:, :, top:bottom]


class Upsampled(Maps):
    """Maps that are computed from smaller ones whenever they are read."""

    smaller = 2

    def __init__(self, source: torch.Tensor, conv: "UpsamplingConv") -> None:
        count, _, height, width = source.shape
        self.shape = (2 * count - 1 if conv.doubles_time else count, conv.channels, 2 * height, 2 * width)
        self.example = self._source = source
        self._conv = conv

    def rows(self, top: int, bottom: int) -> torch.Tensor:
        above = top // 2
        return self._conv(self._source, above, -(-bottom // 2))[:, :, top - 2 * above : bottom - 2 * above]

    def stored(self) -> Stored:
        """All of them, computed once."""
        values = self.empty(self.shape[1])
        for strip in self.strips():
            values[:, :, strip.start : strip.stop] = self.rows(strip.start, strip.stop)
        return Stored(values)


@dataclass(frozen=True)
class Strip:
    """A strip of a convolution's result, what was there before it, and where both lie."""

    rows: slice
    result: torch.Tensor
    source: torch.Tensor

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """This strip of `(t, c, h, w)`."""
        return maps[:, :, self.rows]


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
        levels = [Level(block) for block in decoder.up_blocks]
        # What a shortcut passes by is not needed a second time.
        levels[-2].stores = decoder.up_blocks[-1].resnets[0].conv_shortcut is None
        self.levels = nn.ModuleList(levels)
        self.norm_out = Norm(decoder.conv_norm_out)
        self.conv_out = CausalConv(decoder.conv_out)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `(1, c, t, h, w)` to pixels `(1, 3, 4t - 3, 8h, 8w)`."""
        frames = Stored(latents[0].transpose(0, 1).contiguous(memory_format=torch.channels_last))
        maps: Maps = self.resnet_in(self.conv_in(frames))
        for layer in (*self.middle, *self.levels):
            if layer is self.levels[-1] and latents.is_cuda:
                torch.cuda.empty_cache()  # what smaller maps left is no room for the two largest ones
            maps = layer(maps)
        pixels = self.conv_out(maps, self.norm_out.activation(maps)).values
        return pixels.transpose(0, 1)[None]


class Level(nn.Module):
    """diffusers' HunyuanVideoUpBlock3D."""

    stores = True
    """Whether its doubled maps are kept; else they are computed whenever they are read."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(resnet) for resnet in block.resnets)
        self.upsampler = None if block.upsamplers is None else UpsamplingConv(block.upsamplers[0])

    def forward(self, maps: Maps) -> Maps:
        for resnet in self.resnets:
            maps = resnet(maps)
        if self.upsampler is None:
            return maps
        assert isinstance(maps, Stored)
        upsampled = Upsampled(maps.values, self.upsampler)
        return upsampled.stored() if self.stores else upsampled


class Conv(nn.Module):
    """diffusers' HunyuanVideoCausalConv3d as a 2-D convolution: the inputs of its frames side by side."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, causal: Any) -> None:
        super().__init__()
        weight = causal.conv.weight.detach()
        self.channels = weight.shape[0]
        self.register_buffer("weight", channels_last(weight.permute(0, 2, 1, 3, 4).flatten(1, 2)))
        self.register_buffer("bias", causal.conv.bias.detach())


class CausalConv(Conv):
    """That of kernel 3: edges repeated, two frames of the past."""

    def forward(self, maps: Maps, activation: Activation | None = None) -> Stored:
        """Convolve all maps, after the activation."""
        values = maps.empty(self.channels)
        for strip in self.strips(maps, activation):
            strip.of(values).copy_(strip.result)
        return Stored(values)

    def strips(self, maps: Maps, activation: Activation | None = None) -> Iterator[Strip]:
        """Convolve strip by strip."""
        height = maps.shape[2]
        make_window = choose_make_window(self.weight.device)
        for strip in maps.strips():
            top, bottom = max(strip.start - 1, 0), min(strip.stop + 1, height)
            seen = maps.rows(top, bottom)
            cut = Cut(len(seen), TAPS, strip.start == top, strip.stop == bottom)
            result = functional.conv2d(make_window(seen, cut, activation), self.weight, self.bias)
            source = seen[:, :, strip.start - top : strip.stop - top]
            yield Strip(slice(strip.start, strip.stop), result, source)


class PointConv(Conv):
    """That of kernel 1: the same product at every pixel."""

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
        by_parity: list[tuple[torch.Tensor, ...]] = [(first, second, third)]
        if self.doubles_time:  # an even frame repeats the one before it, an odd one is new
            by_parity = [(first, second + third), (first + second, third)]
        for parity, taps in enumerate(by_parity):
            rows = [_fold(torch.cat(taps, 1), 2, row) for row in (0, 1)]
            corners = [_fold(row, 3, column) for row in rows for column in (0, 1)]
            weight = torch.cat(corners).to(conv.weight.dtype)
            self.register_buffer(f"weight_{parity}", channels_last(weight))

    def forward(self, source: torch.Tensor, top: int, bottom: int) -> torch.Tensor:
        """The result as far as it lies over rows `top` to `bottom` of the source:
        `(frames, channels, 2 * (bottom - top), 2 * width)`."""
        count, _, height, width = source.shape
        seen = source[:, :, max(top - 1, 0) : min(bottom + 1, height)]
        frames = 2 * count - 1 if self.doubles_time else count
        result = source.new_empty(frames, 2 * (bottom - top), 2 * width, self.channels)
        cut = partial(Cut, is_top=top == 0, is_bottom=bottom == height)
        if not self.doubles_time:
            self._convolve(seen, cut(count, TAPS), 0, result)
        else:
            self._convolve(seen, cut(count, TAPS - 1), 0, result[0::2])
            if count > 1:
                self._convolve(seen, cut(count - 1, TAPS - 1), 1, result[1::2])
        return result.permute(0, 3, 1, 2)

    def _convolve(self, seen: torch.Tensor, cut: Cut, parity: int, result: torch.Tensor) -> None:
        """Fill frames `(n, rows, columns, channels)` of the result."""
        window = choose_make_window(seen.device)(seen, cut, None)
        corners = channels_last(functional.conv2d(window, self.get_buffer(f"weight_{parity}"), self.bias))
        # Corner (row, column) of each pixel lies as many pixels further down and to the right.
        frame, _, down, right = corners.stride()
        rows, columns = (side // 2 for side in result.shape[1:3])
        result.unflatten(2, (columns, 2)).unflatten(1, (rows, 2)).copy_(
            corners.as_strided(
                (cut.count, rows, 2, columns, 2, self.channels),
                (frame, down, down + 2 * self.channels, right, right + self.channels, 1),
            )
        )


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
        return Activation(*self._affine(maps), nonlinear)

    def _affine(self, maps: Maps) -> tuple[torch.Tensor, torch.Tensor]:
        """What the norm does to each channel: a factor and a summand, float32 `(c, 1, 1)`."""
        count, channels, height, width = maps.shape
        total, squares = torch.zeros(2, channels, dtype=torch.float64, device=maps.example.device)
        strips = [range(height)] if isinstance(maps, Stored) else maps.strips()
        for strip in strips:
            sums = channel_sums(maps.rows(strip.start, strip.stop))
            total, squares = total + sums[0], squares + sums[1]
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
        for strip in self.conv2.strips(hidden, self.norm2.activation(hidden)):
            strip.of(result.values).add_(strip.result)
        return result

    def _first_half(self, maps: Maps) -> tuple[Stored, Stored]:
        """The first convolution, and what the second one's result is added to."""
        if self.shortcut is None:
            assert isinstance(maps, Stored)
            return self.conv1(maps, self.norm1.activation(maps)), maps
        hidden, residual = maps.empty(self.conv1.channels), maps.empty(self.shortcut.channels)
        for strip in self.conv1.strips(maps, self.norm1.activation(maps)):
            strip.of(hidden).copy_(strip.result)
            strip.of(residual).copy_(self.shortcut(strip.source))
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


def channel_sums(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each channel's sum and sum of squares over `(t, c, r, w)`, float64."""
    if rows.device.type == "cuda":  # one pass, in float32 whatever the maps are in
        means, deviations = zip(*(torch.batch_norm_stats(r[None], STATISTICS_EPS) for r in rows), strict=True)
        mean, size = torch.stack(means).double(), rows[0, 0].numel()
        variance = torch.stack(deviations).double().pow(-2) - STATISTICS_EPS
        return (mean * size).sum(0), ((variance + mean.square()) * size).sum(0)
    norms = torch.linalg.vector_norm(rows, 2, 3, dtype=torch.float32)
    sums = rows.sum(3, dtype=torch.float32).sum((0, 2), dtype=torch.float64)
    return sums, norms.square().sum((0, 2), dtype=torch.float64)


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)

"""The VAE's decoder: diffusers' layers and numbers, in a fifth of the memory and of the time.

Knows one window of frames, but neither tiles nor how windows are joined: diffusers' `vae.decode` does that,
with this module in the place of its `decoder`. The differences:

- Feature maps are stored as frames with the channels last, `(t, c, h, w)`. A 3-D convolution is one
  2-D convolution over three frames side by side in the channels, for which cuDNN is up to twice as fast.
- A layer computes a strip of rows at a time. GroupNorm's statistics are taken over the whole window first, so
  that strips change nothing.
- Upsampling and convolving are one step: of a kernel's nine pixels on a doubled picture only four differ, so
  the weights of the others are added up in advance.
- The largest map, the upsampled one with which the last level begins, is never stored but computed twice.
- In the attention every frame sees those before it: frame by frame, without a mask of tokens x tokens.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..memory import empty_cache
from ..sections import pixel_frames
from .feature_maps import (
    CausalConv,
    FeatureBuffers,
    FeatureMap,
    LazyUpsample,
    PointConv,
    StoredMap,
    UpsamplingConv,
)
from .windows import Activation

STATISTICS_EPS = 1e-6


class WindowDecoder(nn.Module):
    """The replacement of `AutoencoderKLHunyuanVideo.decoder`, made from its weights, rearranged.

    The memory for the largest maps is kept between windows, until `free_buffers`.
    """

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
        # Where there is a shortcut convolution, the input is read strip by strip and needs no storing.
        levels[-2].stores = decoder.up_blocks[-1].resnets[0].conv_shortcut is None
        self.levels = nn.ModuleList(levels)
        self.norm_out = Norm(decoder.conv_norm_out)
        self.conv_out = CausalConv(decoder.conv_out)
        self._feature_buffers: FeatureBuffers | None = None

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents `(1, c, t, h, w)` to pixels `(1, 3, 4t - 3, 8h, 8w)`."""
        frames = latents[0].transpose(0, 1).contiguous(memory_format=torch.channels_last)
        maps: FeatureMap = self.resnet_in(self.conv_in(StoredMap(frames, self._buffers_for(latents))))
        for layer in (*self.middle, *self.levels):
            maps = layer(maps)
        maps.buffers = None  # pixels stay
        pixels = self.conv_out(maps, self.norm_out.activation(maps)).values
        return pixels.transpose(0, 1)[None]

    def free_buffers(self) -> None:
        """Free the memory for the largest maps."""
        self._feature_buffers = None
        empty_cache(self.norm_out.weight.device)

    def _buffers_for(self, latents: torch.Tensor) -> FeatureBuffers:
        """Return the present buffers if they suffice, else new ones."""
        count, height, width = latents.shape[2:]
        num_pixels = pixel_frames(count) * 8 * height * 8 * width
        num_bytes = num_pixels * self.norm_out.weight.numel() * latents.element_size()
        if self._feature_buffers is None or self._feature_buffers.num_bytes < num_bytes:
            self.free_buffers()  # so that each gets a piece of its own
            self._feature_buffers = FeatureBuffers(num_bytes, latents.device)
        return self._feature_buffers


class Level(nn.Module):
    """The counterpart of diffusers' HunyuanVideoUpBlock3D."""

    stores = True
    """True if the upsampled map is stored, False if it is computed whenever it is read."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(resnet) for resnet in block.resnets)
        self.upsampler = None if block.upsamplers is None else UpsamplingConv(block.upsamplers[0])

    def forward(self, maps: FeatureMap) -> FeatureMap:
        for resnet in self.resnets:
            maps = resnet(maps)
        if self.upsampler is None:
            return maps
        assert isinstance(maps, StoredMap)
        upsampled = LazyUpsample(maps, self.upsampler)
        return upsampled.stored() if self.stores else upsampled


class Norm(nn.Module):
    """A GroupNorm over all frames of a window."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("weight", norm.weight.detach().double())
        self.register_buffer("bias", norm.bias.detach().double())
        self._groups, self._eps = norm.num_groups, norm.eps

    def activation(self, maps: FeatureMap, nonlinear: bool = True) -> Activation:
        """Return the norm of a map, followed by SiLU, to apply to pieces of it."""
        count, channels, height, width = maps.shape
        total, squares = channel_sums(maps.pieces())
        size = count * height * width * channels // self._groups
        mean, square = (sums.view(self._groups, -1).sum(1) / size for sums in (total, squares))
        deviation = ((square - mean.square()).clamp(min=0) + self._eps).sqrt()
        mean, deviation = (each.repeat_interleave(channels // self._groups) for each in (mean, deviation))
        factor = self.weight / deviation
        summand = self.bias - mean * factor
        return Activation(factor.float()[:, None, None], summand.float()[:, None, None], nonlinear)


class ResnetBlock(nn.Module):
    """The counterpart of diffusers' HunyuanVideoResnetBlockCausal3D. Overwrites its input."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(resnet.norm1), Norm(resnet.norm2)
        self.conv1, self.conv2 = CausalConv(resnet.conv1), CausalConv(resnet.conv2)
        self.shortcut = None if resnet.conv_shortcut is None else PointConv(resnet.conv_shortcut)

    def forward(self, maps: FeatureMap) -> StoredMap:
        activation = self.norm1.activation(maps)
        if self.shortcut is None:
            assert isinstance(maps, StoredMap)
            hidden, result = self.conv1(maps, activation), maps
        else:
            hidden, result = maps.empty(self.conv1.channels), maps.empty(self.shortcut.channels)
            for strip in self.conv1.strips(maps, activation):
                strip.put_into(hidden)
                self.shortcut(strip.source, strip.view_of(result))
        for strip in self.conv2.strips(hidden, self.norm2.activation(hidden)):
            strip.add_to(result)
        return result


class FrameAttention(nn.Module):
    """The middle's attention: each frame over all pixels of itself and of the frames before it."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.norm = Norm(attention.group_norm)
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]
        self._heads = attention.heads

    def forward(self, maps: StoredMap) -> StoredMap:
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
            present, past = query[:, :, end - size : end], (key[:, :, :end], value[:, :, :end])
            seen = functional.scaled_dot_product_attention(present, *past)
            result = self.to_out(seen.transpose(1, 2).flatten(2)).view(height, width, channels)
            maps.values[frame].add_(result.permute(2, 0, 1))
        return maps


def channel_sums(pieces: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each channel's sum and sum of squares over pieces `(t, c, r, w)` of a map, float64 `(c,)`.

    One pass over each piece and, on a GPU, one launch; in float32 whatever the map's dtype is.
    """
    stats = [(p.numel() // p.shape[1], *_piece_stats(p)) for p in pieces]
    mean = torch.stack([mean for _, mean, _ in stats]).double()
    variance = torch.stack([inverse for _, _, inverse in stats]).double().pow(-2) - STATISTICS_EPS
    most = stats[0][0]
    sizes = mean.new_full((len(stats), 1), most)
    for number, (size, *_) in enumerate(stats):
        if size != most:  # a list would be copied from the CPU, which waits for the GPU
            sizes[number].fill_(size)
    return (mean * sizes).sum(0), ((variance + mean.square()) * sizes).sum(0)


def _piece_stats(piece: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each channel's mean and inverse deviation, float32 `(c,)`."""
    if piece.is_cuda:
        return torch.batch_norm_stats(piece, STATISTICS_EPS)
    variance, mean = torch.var_mean(piece.float(), (0, 2, 3), correction=0)
    return mean, (variance + STATISTICS_EPS).rsqrt()

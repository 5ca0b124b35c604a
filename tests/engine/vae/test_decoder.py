"""Our decoder against diffusers' own: the same numbers, whatever the strips."""

import copy
import json
import math

import pytest
import torch

from diffusers_helper.models.architectures import make_vae
from diffusers_helper.vae import decoder, feature_maps
from diffusers_helper.vae import windows as vae_windows
from diffusers_helper.vae.decoder import WindowDecoder
from diffusers_helper.vae.feature_maps import (
    STRIP_BYTES,
    CausalConv,
    FeatureBuffers,
    LazyUpsample,
    StoredMap,
    UpsamplingConv,
)
from diffusers_helper.vae.tiling import Tiling
from tests.support.tiny import MODELS

CONFIG = json.loads((MODELS / "hunyuanvideo-community/HunyuanVideo/vae/config.json").read_text())


@pytest.fixture(scope="module")
def vae():
    return vae_of()


def vae_of(**config):
    torch.manual_seed(0)
    return make_vae(CONFIG | config).eval().requires_grad_(False)


@pytest.fixture
def strips_of(monkeypatch):
    """Sets how many bytes a strip has."""
    return lambda count: monkeypatch.setitem(STRIP_BYTES, "cpu", count)


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("size", [(5, 4, 6), (1, 8, 12), (2, 5, 3)])
@pytest.mark.parametrize("strip", [2**40, 2**16, 2**13])
@torch.inference_mode()
def test_a_window_is_decoded_to_the_same_pixels(vae, strips_of, size, strip):
    strips_of(strip)
    latents = torch.randn(1, 16, *size)
    for theirs in (vae.decoder, vae_of(block_out_channels=[16, 16, 16, 16]).decoder):
        assert error(WindowDecoder(theirs)(latents), theirs(latents)) < 1e-5


@pytest.fixture
def buffers(monkeypatch):
    """The requests for a buffer: the fraction of it that a map needs, and whether it got one."""
    asked = []
    original = FeatureBuffers.make

    def make(self, shape, dtype):
        made = original(self, shape, dtype)
        asked.append((math.prod(shape) * dtype.itemsize / self.num_bytes, made is not None))
        return made

    monkeypatch.setattr(FeatureBuffers, "make", make)
    return asked


@torch.inference_mode()
def test_windows_that_share_buffers_decode_to_the_same_pixels(strips_of, buffers):
    strips_of(2**13)
    theirs = vae_of(block_out_channels=[16, 32, 64, 64]).decoder  # as they are to each other in the real one
    ours, windows = WindowDecoder(theirs), [torch.randn(1, 16, 3, 3, 4) for _ in range(2)]
    windows.append(windows[0][:, :, :1])
    windows.append(torch.randn(1, 16, 3, 4, 4))
    found = [ours(window) for window in windows]
    for one, window in zip(found, windows, strict=True):
        assert error(one, theirs(window)) < 1e-5
    assert all(got for part, got in buffers if part > 0.6)
    assert any(got for _, got in buffers)
    assert not any(got for part, got in buffers if part < 0.25)


@torch.inference_mode()
def test_upsampled_maps_are_the_same_in_every_strip(vae):
    block = vae.decoder.up_blocks[1].upsamplers[0]
    source = torch.randn(3, block.conv.conv.in_channels, 6, 5)
    whole = block(source.transpose(0, 1)[None])[0].transpose(0, 1)
    maps = LazyUpsample(
        StoredMap(source.contiguous(memory_format=torch.channels_last)), UpsamplingConv(block)
    )
    assert maps.shape == tuple(whole.shape)
    for top in range(12):
        for bottom in range(top + 1, 13):
            assert error(maps.rows(top, bottom), whole[:, :, top:bottom]) < 1e-5


@pytest.mark.parametrize("strip", [2**11, 2**13, 2**16])
@torch.inference_mode()
def test_no_row_is_upsampled_twice_for_a_convolution(vae, strips_of, strip):
    strips_of(strip)
    conv, asked = UpsamplingConv(vae.decoder.up_blocks[1].upsamplers[0]), []
    source = torch.randn(3, 16, 9, 5).contiguous(memory_format=torch.channels_last)
    conv.register_forward_pre_hook(lambda _, arguments: asked.extend(range(*arguments[1:3])))
    maps = LazyUpsample(StoredMap(source), conv)
    for _strip in CausalConv(vae.decoder.up_blocks[2].resnets[0].conv1).strips(maps):
        pass
    assert asked == list(range(9))
    assert maps._newest is None


@pytest.mark.parametrize("strip", [2**11, 2**13, 2**40])
@torch.inference_mode()
def test_pieces_are_all_rows_once(vae, strips_of, monkeypatch, strip):
    strips_of(strip)
    monkeypatch.setattr(feature_maps, "LARGEST_PIECE", 2 * 16 * 9 * 5)
    stored = StoredMap(torch.randn(5, 16, 9, 5).contiguous(memory_format=torch.channels_last))
    doubled = LazyUpsample(stored, UpsamplingConv(vae.decoder.up_blocks[1].upsamplers[0]))
    assert [len(piece) for piece in stored.pieces()] == [2, 2, 1]
    assert torch.equal(torch.cat([*stored.pieces()]), stored.values)
    assert torch.equal(torch.cat([*doubled.pieces()], 2), doubled.stored().values)


@torch.inference_mode()
def test_statistics_of_pieces_add_up_to_those_of_the_map():
    maps = 30 + torch.randn(3, 16, 40, 40) * torch.arange(16)[:, None, None]
    for rows in ([40], [12, 12, 12, 4], [38, 2]):
        wanted = maps.double().sum((0, 2, 3)), maps.double().square().sum((0, 2, 3))
        for found, exact in zip(decoder.channel_sums(maps.split(rows, 2)), wanted, strict=True):
            assert found.dtype == torch.float64
            assert error(found, exact) < 1e-6


@torch.inference_mode()
def test_diffusers_joins_windows_and_tiles_as_before(vae):
    latents = torch.randn(1, 16, 1, 12, 12)
    ours = copy.deepcopy(vae)
    ours.decoder = WindowDecoder(ours.decoder)
    for tiling in (Tiling(96, 96, 96, 96), Tiling(64, 80, 48, 48)):
        for each in (vae, ours):
            tiling.apply(each)
        assert error(ours.decode(latents).sample, vae.decode(latents).sample) < 1e-5


@pytest.mark.parametrize("strip", [2**12, 2**16])
@torch.inference_mode()
def test_no_convolution_sees_more_than_a_strip(vae, strips_of, monkeypatch, strip):
    strips_of(strip)
    windows = []

    def unfold_frames(seen, cut, activation):
        windows.append(vae_windows.unfold_frames(seen, cut, activation))
        return windows[-1]

    monkeypatch.setattr(feature_maps, "choose_unfold_frames", lambda _device: unfold_frames)
    WindowDecoder(vae.decoder)(torch.randn(1, 16, 2, 4, 6))
    for window in windows:
        row = window.numel() * 4 // window.shape[2]
        assert window.numel() * 4 <= strip + 5 * row  # rows above and below, and an even number

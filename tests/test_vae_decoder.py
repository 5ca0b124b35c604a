"""Our decoder against diffusers' own: the same numbers, whatever the pieces."""

import copy
import json

import pytest
import torch

from diffusers_helper import vae_decoder
from diffusers_helper.architectures import make_vae
from diffusers_helper.vae import Tiling
from diffusers_helper.vae_decoder import PIECE_BYTES, Stored, Upsampled, UpsamplingConv, WindowDecoder
from tests.tiny import MODELS

CONFIG = json.loads((MODELS / "hunyuanvideo-community/HunyuanVideo/vae/config.json").read_text())


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return make_vae(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def pieces_of(monkeypatch):
    """Sets how many bytes a piece has."""
    return lambda count: monkeypatch.setitem(PIECE_BYTES, "cpu", count)


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("size", [(5, 4, 6), (1, 8, 12), (2, 5, 3)])
@pytest.mark.parametrize("piece", [2**40, 2**16, 2**13])
@torch.inference_mode()
def test_a_window_is_decoded_to_the_same_pixels(vae, pieces_of, size, piece):
    pieces_of(piece)
    latents = torch.randn(1, 16, *size)
    assert error(WindowDecoder(vae.decoder)(latents), vae.decoder(latents)) < 1e-5


@torch.inference_mode()
def test_the_statistics_of_a_bright_picture_are_exact(vae):
    """A mean that is large against the deviation is where sums of squares lose their digits."""
    theirs = copy.deepcopy(vae.decoder.conv_norm_out).double()
    maps = 30 + torch.randn(3, CONFIG["block_out_channels"][0], 40, 40)
    found = vae_decoder.Norm(theirs).activation(Stored(maps), nonlinear=False)(maps)
    wanted = theirs(maps.double().transpose(0, 1)[None])[0].transpose(0, 1)
    assert float((found - wanted).abs().max()) < 2e-4


@torch.inference_mode()
def test_doubled_maps_are_the_same_in_every_strip(vae):
    block = vae.decoder.up_blocks[1].upsamplers[0]
    source = torch.randn(3, block.conv.conv.in_channels, 6, 5)
    whole = block(source.transpose(0, 1)[None])[0].transpose(0, 1)
    maps = Upsampled(source.contiguous(memory_format=torch.channels_last), UpsamplingConv(block))
    assert maps.shape == tuple(whole.shape)
    for top in range(12):
        for bottom in range(top + 1, 13):
            assert error(maps.rows(slice(1, 4), top, bottom), whole[1:4, :, top:bottom]) < 1e-5


@torch.inference_mode()
def test_windows_and_tiles_are_joined_by_diffusers_as_before(vae):
    latents = torch.randn(1, 16, 5, 12, 12)
    ours = copy.deepcopy(vae)
    ours.decoder = WindowDecoder(ours.decoder)
    for tiling in (Tiling(96, 96, 96, 96), Tiling(64, 80, 48, 48)):
        for each in (vae, ours):
            tiling.apply(each)
        assert error(ours.decode(latents).sample, vae.decode(latents).sample) < 1e-5


@pytest.mark.parametrize("piece", [2**12, 2**16])
@torch.inference_mode()
def test_no_convolution_sees_more_than_a_piece(vae, pieces_of, monkeypatch, piece):
    pieces_of(piece)
    original, sizes = vae_decoder.side_by_side, []

    def side_by_side(*arguments):
        window = original(*arguments)
        sizes.append((window.numel() * window.element_size(), window.shape))
        return window

    monkeypatch.setattr(vae_decoder, "side_by_side", side_by_side)
    WindowDecoder(vae.decoder)(torch.randn(1, 16, 2, 4, 6))
    for size, (_, channels, rows, width) in sizes:
        least = 6 * channels * width * 4  # a single row and what a doubled one needs around it
        assert size <= max(least, piece * rows / (rows - 2) * width / (width - 2))

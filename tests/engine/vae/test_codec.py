"""Tiles as the memory allows, decoding in time, and previews of latents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusers_helper.errors import MachineError
from diffusers_helper.vae import codec
from diffusers_helper.vae import decoder as vae_decoder
from diffusers_helper.vae import tiling as vae_tiling
from diffusers_helper.vae.codec import decode_to, watch_for_black
from diffusers_helper.vae.preview import LATENT_RGB, LATENT_RGB_BIAS, preview_latents
from diffusers_helper.vae.tiling import SMALLEST_TILE, Tiling, tilings_of
from tests.support.tiny import make_loader

GIB = 2**30
CONFIG = SimpleNamespace(block_out_channels=(128, 256, 512, 512))
REAL_VAE = SimpleNamespace(dtype=torch.float16, device=torch.device("cuda"), config=CONFIG)
"""The real VAE as far as its memory goes."""


@pytest.mark.parametrize(("height", "width"), [(608, 640), (416, 960), (64, 96), (1088, 1920), (192, 192)])
def test_tilings_range_from_one_tile_to_the_smallest(height, width):
    tilings = tilings_of(height, width)
    assert (tilings[0].height, tilings[0].width) == (height, width)
    sides = [max(tiling.height, tiling.width) for tiling in tilings]
    assert [side <= SMALLEST_TILE for side in sides] == [False] * (len(tilings) - 1) + [True]
    for needed in (Tiling.bytes_to_encode, Tiling.bytes_to_decode):
        needs = [needed(tiling, REAL_VAE) for tiling in tilings]
        assert needs == sorted(needs, reverse=True)
    for tiling in tilings:
        assert tiling.stride_height % 8 == tiling.stride_width % 8 == 0
        rows = range(0, height, tiling.stride_height)
        assert rows[-1] + tiling.height >= height


@pytest.mark.parametrize(
    ("free", "least", "most"), [(1.5, 280, 400), (3, 400, 640), (4.5, 608, 640), (24, 608, 640)]
)
def test_tiles_of_the_real_size_follow_the_memory(free, least, most):
    fitting = [t for t in tilings_of(608, 640) if t.bytes_to_decode(REAL_VAE) <= free * GIB]
    assert least <= max(fitting[0].height, fitting[0].width) <= most


def test_a_picture_in_tiles_resembles_the_whole_one():
    latents = torch.randn(1, 16, 1, 24, 20)
    with make_loader().vae() as vae:
        whole = torch.stack([*decode_to(iter, latents, vae, 2**40)])
        tiled = torch.stack([*decode_to(iter, latents, vae, tilings_of(192, 160)[1].bytes_to_decode(vae))])
        assert vae.tile_sample_min_height < 192
    # The tiny VAE has random weights: what is in the middle of a tile is what counts.
    assert (whole - tiled).abs().mean() < 0.25 * whole.std()


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 32, then 24 pixels, so that decoding takes no time."""
    monkeypatch.setattr(vae_tiling, "TILE_OVERLAP", 8)
    monkeypatch.setattr(vae_tiling, "SMALLEST_TILE", 24)


def fail_at(vae, numbers):
    """Run out of memory in these calls of the VAE; return the width of the tiles in each call."""
    original, sizes = vae.decode, []

    def decode(z):
        sizes.append(vae.tile_sample_min_width)
        if len(sizes) in numbers:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(z)

    vae.decode = decode
    return sizes


@pytest.mark.parametrize("latent_frames", [1, 2, 4, 5, 6, 9, 10, 13])
def test_by_default_decoding_equals_the_librarys_to_the_bit(latent_frames):
    latents = torch.randn(1, 16, latent_frames, 2, 2)
    with make_loader().vae() as vae:
        found = torch.stack([*decode_to(iter, latents, vae, 2**40)])
        assert torch.equal(found, decode_by_the_library(latents, vae))


def test_omitted_tiles_change_no_frame_before_them():
    latents = torch.randn(1, 16, 18, 2, 2)
    with make_loader().vae() as vae:
        found = torch.stack([*decode_to(iter, latents[:, :, :11], vae, 2**40, starts=(0, 3, 6))])
        wanted = decode_by_the_library(latents, vae)
        last_tile = torch.stack([*decode_to(iter, latents[:, :, 6:11], vae, 2**40, starts=(0,))])
    assert len(found) == 41
    assert torch.equal(found[:38], wanted[:38])  # the first of four frames that are blended is as it was
    assert torch.equal(found[29:], last_tile[-12:])


def test_a_tiles_frames_are_taken_before_the_next_tile_is_decoded(monkeypatch):
    """The progress is reported at once, and memory does not grow with the length. A GPU is one tile ahead."""
    queued, seen, fetched = [], [], []
    original_frame = codec._to_frame

    def to_frame(pixels):
        fetched.append(len(queued))
        return original_frame(pixels)

    monkeypatch.setattr(codec, "_to_frame", to_frame)

    with make_loader().vae() as vae:
        original = vae.decode
        vae.decode = lambda z: queued.append(z) or original(z)
        for frame in decode_to(iter, torch.randn(1, 16, 11, 2, 2), vae, 2**40, starts=(0, 3, 6)):
            assert frame.shape == (16, 16, 3)
            seen.append(len(queued))
    assert seen == [1] * 13 + [2] * 12 + [3] * 16
    assert fetched == seen


@pytest.mark.usefixtures("small_tiles")
def test_after_out_of_memory_all_frames_are_taken_again_in_smaller_tiles():
    latents, taken = torch.randn(1, 16, 8, 4, 4), []

    def take(frames):
        taken.append([])
        for frame in frames:
            taken[-1].append(frame)
            yield len(taken[-1])

    with make_loader().vae() as vae:
        sizes = fail_at(vae, (3, 4))
        numbers = list(decode_to(take, latents, vae, 2**40))
        smaller = torch.stack([*decode_to(iter, latents, vae, tilings_of(32, 32)[2].bytes_to_decode(vae))])
    assert numbers == [*range(1, 26), *range(1, 30)]
    assert sizes[:5] == [32] * 4 + [24]
    assert [len(frames) for frames in taken] == [25, 0, 29], "those of the first two tiles, none, all"
    assert torch.equal(torch.stack(taken[2]), smaller)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory"), OSError("disk full")])
def test_after_any_failure_the_feature_buffers_are_freed(failure, monkeypatch):
    left = []

    def take(frames):
        next(frames)
        raise failure

    with make_loader().vae() as vae:
        monkeypatch.setattr(vae_decoder, "empty_cache", lambda _: left.append(vae.decoder._feature_buffers))
        for size, may_shrink in ((2, True), (4, False)):
            left.clear()
            with pytest.raises(type(failure)) as caught:
                list(decode_to(take, torch.randn(1, 16, 8, size, size), vae, 2**40, may_shrink))
            assert caught.value is failure
            assert left[-1] is None
            assert len(left) == 2, "before and after the buffers"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_pixel_that_is_not_finite_is_an_error(number):
    latents = torch.randn(1, 16, 8, 2, 2)
    latents[:, :, -1] = number
    taken = []
    with make_loader().vae() as vae, pytest.raises(MachineError, match="not_a_number_in_pixels"):
        taken.extend(decode_to(iter, latents, vae, 2**40))
    assert 0 < len(taken) < 29


def frames_of(*values):
    return [torch.full((2, 2, 3), float(value)) for value in values]


def test_black_frames_are_yielded_and_raise_in_the_end():
    bright, black = np.full((4, 4, 3), 200), np.zeros((4, 4, 3))
    passed = []
    with pytest.raises(MachineError, match="black_section"):
        passed.extend(watch_for_black(frames_of(0, 3, 0, 99), 3, [bright]))
    assert len(list(watch_for_black(frames_of(0, 4, 0, 99), 3, [bright]))) == 4
    assert len(list(watch_for_black(frames_of(0, 3, 0, 99), 3, [bright, black]))) == 4


@torch.inference_mode()
def decode_by_the_library(latents, vae):
    vae.use_framewise_decoding = True
    pixels = vae.decode(latents / vae.config.scaling_factor).sample[0]
    return (pixels.permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5


def test_the_preview_equals_the_map_computed_frame_by_frame():
    latents = 3 * torch.randn(1, 16, 3, 8, 12)
    colours = torch.einsum("bcthw,cr->bthwr", latents, torch.tensor(LATENT_RGB))
    colours = (colours + torch.tensor(LATENT_RGB_BIAS)).clamp(0, 1) * 255
    wanted = colours.round().to(torch.uint8)[0]
    found = preview_latents(latents)
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted.numpy())
    assert np.array_equal(preview_latents(latents, [*LATENT_RGB, LATENT_RGB_BIAS]), found)
    grey = preview_latents(latents, [[0, 0, 0]] * 16 + [[0.5, 0.5, 0.5]])
    assert np.unique(grey).tolist() == [128]

"""Decoding fewer latent frames gives upstream's pixels."""

import numpy as np
import pytest

from benchmarks.context import join, join_as_upstream, ours, random_case
from diffusers_helper.sections import SectionSize
from tests.support.tiny import make_loader

ONE, HALF = SectionSize.ONE_SECOND, SectionSize.HALF_SECOND


def joined(size, sections, contrast):
    """A video of random latents as it is and as upstream has it, `contrast` times the tiny VAE's."""
    plan, latents = random_case(sections, size)
    latents = [section[..., :2, :2] for section in latents]
    with make_loader().vae() as vae:
        for values in vae.decoder.conv_out.buffers():
            values *= contrast
        found, wanted = join(vae, plan, latents, ours), join_as_upstream(vae, plan, latents)
    assert found.shape == wanted.shape == (plan.pixel_frames, 16, 16, 3)
    return found.astype(int), wanted.astype(int)


@pytest.mark.parametrize(
    ("size", "sections"), [(ONE, 1), (ONE, 2), (ONE, 3), (HALF, 1), (HALF, 2), (HALF, 3)]
)
def test_without_clipping_pixels_equal_upstreams_to_one_level(size, sections):
    found, wanted = joined(size, sections, contrast=0.1)
    assert 0 < wanted.min() < wanted.max() < 255
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("size", SectionSize)
def test_frames_outside_joins_equal_upstreams_to_the_bit_and_others_nearly(size):
    found, wanted = joined(size, 4, contrast=1)
    joints = [4 * (size.latent_frames * count + 1) for count in (1, 2, 3)]
    ends = [0, *(joint + size.overlap_frames for joint in joints)]
    for begin, end in zip(ends, joints, strict=False):
        assert end > begin
        np.testing.assert_array_equal(found[begin:end], wanted[begin:end])
    assert np.abs(found - wanted).mean() < 0.1  # of noise that is clipped
    assert 10 * np.log10(255**2 / ((found - wanted) ** 2).mean((1, 2, 3)).max()) > 35

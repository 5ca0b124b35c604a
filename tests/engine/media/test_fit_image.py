"""Pictures are scaled and cropped to any size."""

import os

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media import images
from diffusers_helper.media.images import fit_image
from tests.support import process_memory
from tests.support.pictures import noise


def plain_fit(image: np.ndarray, height: int, width: int, position: float = 0.5) -> np.ndarray:
    """The picture scaled as a whole, then cropped."""
    old_height, old_width = image.shape[:2]
    scale = max(width / old_width, height / old_height)
    new_width, new_height = round(old_width * scale), round(old_height * scale)
    scaled = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.LANCZOS)
    left, top = round((new_width - width) * position), round((new_height - height) * position)
    return np.asarray(scaled.crop((left, top, left + width, top + height)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((300, 400), (64, 96)), ((64, 96), (300, 400)), ((1001, 667), (832, 480)), ((333, 333), (608, 640)),
        ((480, 833), (480, 832)), ((20, 2000), (416, 960)), ((3000, 21), (960, 416)), ((8, 8), (640, 608)),
        ((97, 31), (64, 64)), ((1234, 777), (160, 2048)),
    ],
)  # fmt: skip
def test_fitting_scales_the_whole_and_crops_the_centre(monkeypatch, old, new):
    expected = plain_fit(noise(*old), *new)
    assert np.array_equal(fit_image(noise(*old), *new), expected)
    monkeypatch.setattr(images, "MAX_SCALED_PIXELS", 0)
    difference = np.abs(fit_image(noise(*old), *new).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-5


@pytest.mark.parametrize("position", [0, 0.25, 1])
@pytest.mark.parametrize("old", [(300, 700), (700, 300)])
def test_the_part_that_stays_can_be_chosen(monkeypatch, old, position):
    expected = plain_fit(noise(*old), 64, 96, position)
    assert np.array_equal(fit_image(noise(*old), 64, 96, position), expected)
    assert not np.array_equal(fit_image(noise(*old), 64, 96), expected)
    monkeypatch.setattr(images, "MAX_SCALED_PIXELS", 0)
    assert np.abs(fit_image(noise(*old), 64, 96, position).astype(int) - expected).max() <= 2


def test_a_picture_that_fits_is_returned_unchanged():
    picture = noise(64, 96)
    assert fit_image(picture, 64, 96) is picture


@pytest.mark.parametrize("shape", [(10, 30_000), (30_000, 10)])
def test_a_very_long_picture_needs_little_memory(shape):
    image = np.zeros((*shape, 3), np.uint8)
    before = process_memory.highest(os.getpid())
    assert fit_image(image, 416, 960).shape == (416, 960, 3)
    assert process_memory.highest(os.getpid()) - before < 64 * 2**20

"""Frames of one colour and of noise are told from pictures, and only where the job's pictures are others."""

import numpy as np
import pytest

from diffusers_helper.media.visible import judge

RANDOM = np.random.default_rng(0)
FLAT = np.full((128, 192, 3), 90, np.uint8)
NOISE = RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
PICTURE = np.broadcast_to(np.linspace(0, 255, 192)[None, :, None], (128, 192, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("frames", "pictures", "wrong"),
    [
        ([PICTURE] * 3, [PICTURE], None),
        ([FLAT] * 3, [PICTURE], "flat"),
        ([NOISE] * 3, [PICTURE], "noise"),
        ([FLAT, PICTURE, PICTURE], [PICTURE], None),
        ([FLAT] * 3, [PICTURE, FLAT], None),
        ([FLAT] * 3, [NOISE], "flat"),
        ([NOISE] * 3, [NOISE], None),
        ([NOISE] * 3, [PICTURE, NOISE], None),
        ([NOISE[:64, :64]] * 3, [PICTURE[:64, :64]], None),
    ],
)
def test_frames_are_judged_by_the_pictures_that_they_come_of(frames, pictures, wrong):
    assert judge(frames, pictures) == wrong

"""The judgement of frames at a glance: nearly one colour, or noise. Knows no model.

Measured on blocks as large as a latent pixel: neighbours in a picture are alike, those in noise are
not. The demo's videos keep their start picture's likeness (0.59 to 0.79, as it); zeroed or shuffled weights
halve it, and random ones leave 0.2 of 0.96.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

BLOCK = 8
"""Pixels along a side of a block."""
FEWEST_BLOCKS = 12
"""Blocks along a side at least: in fewer, chance decides."""
FLAT, CONTRAST = 2.0, 8.0
"""The standard deviations of brightness (of 255) below which frames show nothing, and pictures something."""
LIKENESS, NOISE, NOISE_PART = 0.4, 0.45, 0.6
"""The least likeness of neighbours in a picture, and the most in noise: absolutely, and of the picture's."""


def judge(frames: Iterable[np.ndarray], pictures: Iterable[np.ndarray]) -> Literal["flat", "noise"] | None:
    """Tell what is wrong with frames `(height, width, 3)` uint8 that come of `pictures`, if anything is.

    Nothing is if one of the pictures is as they are.
    """
    made, given = [_measure(frame) for frame in frames], [_measure(picture) for picture in pictures]
    contrast, likeness = np.median(made, axis=0)
    if contrast < FLAT and min(contrast for contrast, _ in given) > CONTRAST:
        return "flat"
    least = min(likeness for _, likeness in given)
    if least > LIKENESS and likeness < min(NOISE, NOISE_PART * least):
        return "noise"
    return None


def _measure(frame: np.ndarray) -> tuple[float, float]:
    """Return a frame's contrast, and how alike neighbouring blocks are: 1 the same, 0 as chance has it."""
    grey = frame.mean(axis=2)
    height, width = (side // BLOCK for side in grey.shape)
    if min(height, width) < FEWEST_BLOCKS:
        return float(grey.std()), LIKENESS
    blocks = grey[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width, BLOCK).mean(axis=(1, 3))
    blocks -= blocks.mean()
    neighbours = (np.mean(blocks[1:] * blocks[:-1]) + np.mean(blocks[:, 1:] * blocks[:, :-1])) / 2
    return float(grey.std()), float(neighbours / max(np.mean(blocks**2), 1e-6))

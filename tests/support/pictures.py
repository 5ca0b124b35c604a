"""Pictures that many tests start from."""

import numpy as np

PICTURE = np.full((64, 96, 3), (200, 30, 60), np.uint8)


def noise(height: int, width: int) -> np.ndarray:
    """A picture whose pixels are random, the same at every call."""
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)

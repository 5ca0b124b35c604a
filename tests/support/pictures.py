"""Pictures that many tests start from."""

import numpy as np

PICTURE = np.full((64, 96, 3), (200, 30, 60), np.uint8)

"""The small pictures that pages show of a job: of its start image, and of the latents under way.

Both are bytes of a WebP file. Knows neither jobs nor pages.
"""

import io
import threading

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 128
PREVIEW_WIDTH = 1200
PREVIEW_SCALE = 8
"""A latent pixel stands for so many of the video's each way: larger than the video no preview gets."""


def make_thumbnail(picture: np.ndarray) -> bytes:
    """A picture `(height, width, 3)` uint8, at most 128 pixels wide and high."""
    image = Image.fromarray(picture)
    # `reducing_gap` first takes the mean of blocks: a picture of 50 megapixels in a tenth of the time.
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _to_webp(image)


class LatentPreview:
    """Latents as the engine shows them, `(height, width, 3)` uint8. Encoded once, when somebody looks."""

    def __init__(self, number: int, pixels: np.ndarray) -> None:
        self.number = number
        self._pixels = pixels
        self._encoded: bytes | None = None
        self._lock = threading.Lock()

    def encoded(self) -> bytes:
        """The preview scaled up to be seen, at most 1200 pixels wide."""
        with self._lock:
            if self._encoded is None:
                self._encoded = _to_webp(_scaled(Image.fromarray(self._pixels)))
            return self._encoded


def _scaled(image: Image.Image) -> Image.Image:
    scale = min(PREVIEW_SCALE, PREVIEW_WIDTH / image.width)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.BICUBIC)


def _to_webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()

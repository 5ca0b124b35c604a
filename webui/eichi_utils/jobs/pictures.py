"""The small WebP pictures of a job that pages show: of its start image, and of its newest latents."""

import io
import threading

import numpy as np
from PIL import Image

THUMBNAIL_SIDE = 128
PREVIEW_WIDTH = 1200
PREVIEW_SCALE = 8
"""The video's pixels for each latent pixel, each way: no preview is larger than the video."""


def make_thumbnail(picture: np.ndarray) -> bytes:
    """Return a WebP of a picture `(height, width, 3)` uint8, at most 128 pixels wide and high."""
    image = Image.fromarray(picture)
    # `reducing_gap` first takes the mean of blocks: a picture of 50 megapixels in a tenth of the time.
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _to_webp(image)


class LatentPreview:
    """The engine's preview of latents, `(height, width, 3)` uint8; encoded once, when a page asks for it."""

    def __init__(self, number: int, pixels: np.ndarray) -> None:
        self.number = number
        self._pixels = pixels
        self._encoded: bytes | None = None
        self._lock = threading.Lock()

    def encoded(self) -> bytes:
        """Return a WebP of the preview, scaled up, at most 1200 pixels wide."""
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

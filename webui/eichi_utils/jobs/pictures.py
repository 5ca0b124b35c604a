"""The small WebP pictures of a job that pages show: of its start image, and of its newest latents."""

import io
from typing import Any

import numpy as np
from PIL import Image

from diffusers_helper.sections import FPS, FRAMES_PER_LATENT

THUMBNAIL_SIDE = 128
PREVIEW_SIDE = 320
"""Pixels of a preview's longer side; browsers enlarge it smoothly to the video's size."""
FRAME_MILLISECONDS = round(1000 * FRAMES_PER_LATENT / FPS)
"""Milliseconds of a latent frame in the finished video."""


def make_thumbnail(picture: np.ndarray, most: tuple[int, int] = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)) -> bytes:
    """Return a WebP of a picture `(height, width, 3)` uint8 that is at most so wide and high."""
    image = Image.fromarray(picture)
    # `reducing_gap` first takes the mean of blocks: a picture of 50 megapixels in a tenth of the time.
    image.thumbnail(most, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _to_webp(image)


def make_preview(latents: np.ndarray) -> bytes:
    """Return a WebP of a preview `(frames, height, width, 3)` uint8 that moves as fast as the video."""
    height, width = latents.shape[1:3]
    scale = PREVIEW_SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    first, *rest = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in latents)
    moving = {"save_all": True, "append_images": rest, "duration": FRAME_MILLISECONDS, "loop": 0}
    return _to_webp(first, **moving, method=0)


def _to_webp(image: Image.Image, method: int = 2, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=method, **options)
    return buffer.getvalue()

"""The sizes that a video can have: buckets of about the same number of pixels and different shapes."""

SIZE_MULTIPLE = 16
"""Pixels to one transformer patch: 8 in the VAE times 2 in the patch embedding."""
BUCKET_MULTIPLE = 32
BASE_RESOLUTION = 640
_BASE_BUCKETS = ((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640))
"""The buckets of FramePack for 640; each also exists with its sides swapped."""


def bucket_table(resolution: int) -> list[tuple[int, int]]:
    """Return sizes (height, width) in ascending height, multiples of 32, about `resolution` squared pixels.

    Other resolutions are the 640 table scaled, so they span the same aspect ratios.
    """

    def scaled(side: int) -> int:
        return max(round(side * resolution / BASE_RESOLUTION / BUCKET_MULTIPLE), 1) * BUCKET_MULTIPLE

    wide = {(scaled(height), scaled(width)) for height, width in _BASE_BUCKETS}
    return sorted(wide | {(width, height) for height, width in wide})


def nearest_bucket(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Return the bucket (height, width) nearest to a picture in shape; of two as near, the taller."""

    def distance(bucket: tuple[int, int]) -> int:
        return abs(height * bucket[1] - width * bucket[0])

    return min(reversed(bucket_table(resolution)), key=distance)


def video_size(
    resolution: int, width: int | None, height: int | None, picture_height: int, picture_width: int
) -> tuple[int, int]:
    """Return the size (height, width) of the video that a start picture of the given size in pixels leads to.

    `width` and `height`, where both are given, win over `resolution`. The start picture alone decides, so
    that other pictures of any shape fit.
    """
    if height is not None and width is not None:
        return height, width
    return nearest_bucket(picture_height, picture_width, resolution)

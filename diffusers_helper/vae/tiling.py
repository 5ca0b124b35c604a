"""The tiles in space into which a picture is cut so that encoding or decoding one fits into the memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..sections import TILE_LATENTS, pixel_frames
from .feature_maps import STRIP_BYTES

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

TILE_OVERLAP = 64
SMALLEST_TILE = 160
ENCODED_MAPS = 7.0
"""The memory of encoding a picture, in maps of the second level's channels (measured: 6.8)."""
MASK_BYTES = 7
"""Bytes for an entry of the encoder's mask while it is made: a flag, a float32 and the result."""
DECODED_MAPS = 2.3
"""The memory of decoding a window, in maps of all frames with the last level's channels: two are stored, and
the smaller one that they are computed from is a quarter of one."""
STRIPS = 3
"""The number of strips that a convolution holds: its input, that unfolded, its result."""


@dataclass(frozen=True)
class Tiling:
    """The size of tiles in space and their distance, in pixels. In time, a tile has five latent frames."""

    height: int
    width: int
    stride_height: int
    stride_width: int

    def apply(self, vae: "AutoencoderKLHunyuanVideo") -> None:
        vae.enable_tiling(
            tile_sample_min_height=self.height,
            tile_sample_min_width=self.width,
            tile_sample_stride_height=self.stride_height,
            tile_sample_stride_width=self.stride_width,
        )

    def bytes_to_encode(self, vae: "AutoencoderKLHunyuanVideo") -> int:
        """Return the bytes that a tile of a picture needs: for its widest maps, or its attention's mask."""
        pixels = self.height * self.width
        features = ENCODED_MAPS * vae.config.block_out_channels[1] * vae.dtype.itemsize
        return max(int(pixels * features), MASK_BYTES * (pixels // 64) ** 2)

    def bytes_to_decode(self, vae: "AutoencoderKLHunyuanVideo") -> int:
        """Return the bytes that a window of such a tile needs in `WindowDecoder`."""
        pixels = pixel_frames(TILE_LATENTS) * self.height * self.width
        features = DECODED_MAPS * vae.config.block_out_channels[0] * vae.dtype.itemsize
        return int(pixels * features) + STRIPS * STRIP_BYTES[vae.device.type]


def tilings_of(height: int, width: int) -> list[Tiling]:
    """Return tilings of a picture that overlap by `TILE_OVERLAP`, from one tile to the smallest."""
    tilings: list[Tiling] = []
    rows = columns = 1
    while not tilings or max(tilings[-1].height, tilings[-1].width) > SMALLEST_TILE:
        sides = [_tile(height, rows), _tile(width, columns)]
        (tile_height, stride_height), (tile_width, stride_width) = sides
        tilings.append(Tiling(tile_height, tile_width, stride_height, stride_width))
        if tile_height >= tile_width:
            rows += 1
        else:
            columns += 1
    return tilings


def _tile(side: int, count: int) -> tuple[int, int]:
    """Return size and distance of `count` tiles along a side, multiples of 8."""
    if count == 1:
        return side, side
    stride = -(-side // count // 8) * 8
    return stride + TILE_OVERLAP, stride

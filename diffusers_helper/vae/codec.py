"""Between pixels and latents. Pictures are uint8, latents are scaled as the transformer sees them."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from einops import rearrange

from ..errors import MachineError
from ..memory import is_out_of_memory
from ..sections import TILE_BLEND, TILE_LATENTS, pixel_frames, tile_starts
from .feature_maps import STRIP_BYTES

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

BLACK_LEVEL = 3
"""A section without one pixel brighter than this (of 255) is black."""
TILE_OVERLAP = 64
SMALLEST_TILE = 160
ENCODED_MAPS = 7.0
"""Memory of a picture's encoding: this many maps of the second level's channels (measured: 6.8)."""
MASK_BYTES = 7
"""Bytes to an entry of the encoder's mask while it is made: a flag, a float32 and the result."""
DECODED_MAPS = 2.3
"""Memory of a window's decoding: this many maps of the last level's channels, all frames of it: two are
stored, and the smaller one that they come from is a quarter of one."""
STRIPS = 3
"""Strips that a convolution holds at once: its input, once more side by side, its result."""


@torch.inference_mode()
def encode_picture(
    picture: np.ndarray, vae: "AutoencoderKLHunyuanVideo", budget: int = 2**62
) -> torch.Tensor:
    """Encode `(height, width, 3)` uint8 to latents `(1, 16, 1, height/8, width/8)` float32 on the CPU.

    Takes the posterior's mode, not a sample, so that the seed alone decides the video. A picture for
    which `budget` bytes are too few is encoded in tiles.
    """
    tilings = tilings_of(picture.shape[0], picture.shape[1])
    next((t for t in tilings if t.bytes_to_encode(vae) <= budget), tilings[-1]).apply(vae)
    pixels = torch.from_numpy(picture.copy()).float() / 127.5 - 1
    pixels = rearrange(pixels, "h w c -> 1 c 1 h w").to(vae.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    return latents.float().cpu()


def decode_latents(
    latents: torch.Tensor,
    vae: "AutoencoderKLHunyuanVideo",
    budget: int,
    may_shrink: bool = True,
    starts: Sequence[int] | None = None,
) -> torch.Tensor:
    """`decode_to` for who has the memory: all frames `(4t - 3, 8h, 8w, 3)` at once."""
    return decode_to(lambda frames: torch.stack([*frames]), latents, vae, budget, may_shrink, starts)


@torch.inference_mode()
def decode_to(
    take: Callable[[Iterator[torch.Tensor]], _T],
    latents: torch.Tensor,
    vae: "AutoencoderKLHunyuanVideo",
    budget: int,
    may_shrink: bool = True,
    starts: Sequence[int] | None = None,
) -> _T:
    """Decode latents `(1, 16, t, h, w)` and have the `4t - 3` frames taken, while a card goes on with others.

    A frame is `(8h, 8w, 3)` float32 in 0..255 on the CPU, so that it can still be blended without rounding.
    They are decoded in as few tiles as `budget` bytes of the device's memory allow; where that was too few
    and the tiles `may_shrink`, in more: then `take` is called again, and gets all of them from the first on.
    In time, tiles begin at the latent frames `starts`; None: where the VAE's own do.

    Returns:
        What `take` returns.

    Raises:
        MachineError: a pixel is not a number.
        torch.OutOfMemoryError: the tiles do not fit, or not even the smallest.
    """
    latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    height, width = (8 * side for side in latents.shape[-2:])
    tilings = [t for t in tilings_of(height, width) if t.bytes_to_decode(vae) <= budget or t.is_smallest]
    starts = tile_starts(latents.shape[2]) if starts is None else starts

    def attempt(tiling: Tiling) -> _T:
        with closing(_decode_in_time(latents, vae, tiling, starts)) as frames:
            return take(frames)

    *larger, smallest = tilings if may_shrink else tilings[:1]
    for tiling in larger:
        try:
            return attempt(tiling)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        logger.info("out of memory with tiles of %dx%d", tiling.height, tiling.width)
    return attempt(smallest)


def _decode_in_time(
    latents: torch.Tensor, vae: "AutoencoderKLHunyuanVideo", tiling: "Tiling", starts: Sequence[int]
) -> Generator[torch.Tensor, None, None]:
    """Frames on the CPU: those of a tile come when the next one is in a card's queue, which has work then."""
    fetcher = _Fetcher(vae.device)
    before: Iterator[torch.Tensor] = iter(())
    with closing(_pixels_in_time(latents, vae, tiling, starts)) as tiles:
        for pixels in tiles:
            newest = fetcher.fetch(pixels)
            yield from before
            before = newest
        yield from before


def _pixels_in_time(
    latents: torch.Tensor, vae: "AutoencoderKLHunyuanVideo", tiling: "Tiling", starts: Sequence[int]
) -> Generator[torch.Tensor, None, None]:
    """What the VAE's own `_temporal_tiled_decode` gives, of the tiles at `starts` only: one piece
    `(1, 3, n, height, width)` after the other, as soon as it is in the card's queue.

    The library always decodes to the last latent frame, in a tile cut short.
    """
    tiling.apply(vae)
    logger.info("decoding in tiles of %dx%d", tiling.height, tiling.width)
    vae.use_framewise_decoding = False  # what comes in is one tile
    tail: torch.Tensor | None = None
    with vae.decoder.reusing_buffers():
        for start in starts:
            tile = vae.decode(latents[:, :, start : start + TILE_LATENTS]).sample
            if tail is not None:
                tile = vae.blend_t(tail, tile[:, :, 1:], TILE_BLEND)
            is_last = start == starts[-1]
            tail = tile[:, :, -TILE_BLEND:]
            yield tile if is_last else tile[:, :, :-TILE_BLEND]


class _Fetcher:
    """Brings pixels to the CPU; of a card it waits for these alone, not for what is queued behind them."""

    def __init__(self, device: torch.device) -> None:
        # Of high priority: what it has to do is short, and a whole window lies in the queue beside it.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def fetch(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pixels `(1, 3, n, height, width)` that are queued now, as frames that come when asked for."""
        if self._stream is None:
            return (_to_frame(each) for each in pixels[0].unbind(1))
        queued = torch.cuda.current_stream(pixels.device).record_event()
        return self._fetch_beside(pixels, queued, self._stream)

    def _fetch_beside(
        self, pixels: torch.Tensor, queued: torch.cuda.Event, stream: torch.cuda.Stream
    ) -> Iterator[torch.Tensor]:
        stream.wait_event(queued)
        for each in pixels[0].unbind(1):
            with torch.cuda.stream(stream):
                frame = _to_frame(each)
            yield frame


def _to_frame(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels `(3, height, width)` as a frame on the CPU."""
    if not torch.isfinite(pixels).all():
        raise MachineError("not_a_number_in_pixels")
    frame = pixels.permute(1, 2, 0).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return frame.clamp_(-1, 1).add_(1).mul_(127.5).cpu()


@dataclass(frozen=True)
class Tiling:
    """Tiles in space, in pixels: how large each is and how far from the next. In time the VAE decodes
    five latent frames at once, blended, always."""

    height: int
    width: int
    stride_height: int
    stride_width: int
    is_smallest: bool = False

    def apply(self, vae: "AutoencoderKLHunyuanVideo") -> None:
        vae.enable_tiling(
            tile_sample_min_height=self.height,
            tile_sample_min_width=self.width,
            tile_sample_stride_height=self.stride_height,
            tile_sample_stride_width=self.stride_width,
        )

    def bytes_to_encode(self, vae: "AutoencoderKLHunyuanVideo") -> int:
        """Memory that tiles of one picture take: their widest feature maps, or their attention's mask."""
        pixels = self.height * self.width
        features = ENCODED_MAPS * vae.config.block_out_channels[1] * vae.dtype.itemsize
        return max(int(pixels * features), MASK_BYTES * (pixels // 64) ** 2)

    def bytes_to_decode(self, vae: "AutoencoderKLHunyuanVideo") -> int:
        """Memory that a window of such tiles takes in `WindowDecoder`."""
        pixels = pixel_frames(TILE_LATENTS) * self.height * self.width
        features = DECODED_MAPS * vae.config.block_out_channels[0] * vae.dtype.itemsize
        return int(pixels * features) + STRIPS * STRIP_BYTES[vae.device.type]


def tilings_of(height: int, width: int) -> list[Tiling]:
    """Ways to cut a picture into tiles that overlap by `TILE_OVERLAP`, from one tile to the smallest."""
    tilings = []
    rows = columns = 1
    while True:
        sides = [_tile(height, rows), _tile(width, columns)]
        (tile_height, stride_height), (tile_width, stride_width) = sides
        is_smallest = max(tile_height, tile_width) <= SMALLEST_TILE
        tilings.append(Tiling(tile_height, tile_width, stride_height, stride_width, is_smallest))
        if is_smallest:
            return tilings
        if tile_height >= tile_width:
            rows += 1
        else:
            columns += 1


def _tile(side: int, count: int) -> tuple[int, int]:
    """Size and distance of `count` tiles along a side, multiples of 8."""
    if count == 1:
        return side, side
    stride = -(-side // count // 8) * 8
    return stride + TILE_OVERLAP, stride


def watch_for_black(
    frames: Iterable[torch.Tensor], count: int, pictures: Iterable[np.ndarray]
) -> Iterator[torch.Tensor]:
    """Pass frames on, and notice in the end that the first `count` were all black although none of the job's
    pictures is.

    Raises:
        MachineError: they were.
    """
    brightest = 0.0
    for number, frame in enumerate(frames):
        if number < count and brightest <= BLACK_LEVEL:
            brightest = max(brightest, float(frame.max()))
        yield frame
    if brightest <= BLACK_LEVEL < min(picture.max() for picture in pictures):
        raise MachineError("black_section")


def preview_latents(latents: torch.Tensor) -> np.ndarray:
    """A rough picture of latents `(1, 16, t, h, w)`, frames side by side: `(h, t*w, 3)` uint8.

    It is made where the latents are: less comes to the CPU, which has the weights to see to.
    """
    to_rgb, bias = (torch.tensor(values, device=latents.device) for values in (LATENT_RGB, LATENT_RGB_BIAS))
    colours = (torch.einsum("bcthw,cr->bthwr", latents.float(), to_rgb) + bias).clamp(0, 1) * 255
    return rearrange(colours.round().to(torch.uint8), "1 t h w c -> h (t w) c").cpu().numpy()


LATENT_RGB = (
    (-0.0395, -0.0331, 0.0445), (0.0696, 0.0795, 0.0518), (0.0135, -0.0945, -0.0282),
    (0.0108, -0.0250, -0.0765), (-0.0209, 0.0032, 0.0224), (-0.0804, -0.0254, -0.0639),
    (-0.0991, 0.0271, -0.0669), (-0.0646, -0.0422, -0.0400), (-0.0696, -0.0595, -0.0894),
    (-0.0799, -0.0208, -0.0375), (0.1166, 0.1627, 0.0962), (0.1165, 0.0432, 0.0407),
    (-0.2315, -0.1920, -0.1355), (-0.0270, 0.0401, -0.0821), (-0.0616, -0.0997, -0.0727),
    (0.0249, -0.0469, -0.1703),
)  # fmt: skip
LATENT_RGB_BIAS = (0.0259, -0.0192, -0.0761)
"""A linear fit from HunyuanVideo's 16 latent channels to colours."""

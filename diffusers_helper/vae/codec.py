"""The conversion of pixels and latents. Pictures are uint8, latents scaled as the transformer sees them."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from einops import rearrange

from ..errors import MachineError
from ..memory import is_out_of_memory
from ..sections import TILE_BLEND, TILE_LATENTS, tile_starts
from .tiling import Tiling, tilings_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

logger = logging.getLogger(__name__)

_Y = TypeVar("_Y")

BLACK_LEVEL = 3
"""The brightest value (of 255) of a section that counts as black."""


@torch.inference_mode()
def encode_picture(
    picture: np.ndarray, vae: "AutoencoderKLHunyuanVideo", budget: int = 2**62
) -> torch.Tensor:
    """Encode `(height, width, 3)` uint8 to latents `(1, 16, 1, height/8, width/8)` float32 on the CPU.

    Takes the posterior's mode, not a sample, so that the seed alone decides the video. A picture that needs
    more than `budget` bytes is encoded in tiles.
    """
    tilings = tilings_of(picture.shape[0], picture.shape[1])
    next((t for t in tilings if t.bytes_to_encode(vae) <= budget), tilings[-1]).apply(vae)
    pixels = torch.from_numpy(picture.copy()).float() / 127.5 - 1
    pixels = rearrange(pixels, "h w c -> 1 c 1 h w").to(vae.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    return latents.float().cpu()


@torch.inference_mode()
def decode_to(
    take: Callable[[Iterator[torch.Tensor]], Iterable[_Y]],
    latents: torch.Tensor,
    vae: "AutoencoderKLHunyuanVideo",
    budget: int,
    may_shrink: bool = True,
    starts: Sequence[int] | None = None,
) -> Generator[_Y, None, None]:
    """Decode latents `(1, 16, t, h, w)` and pass the `4t - 3` frames to `take`, whose values it yields.

    A GPU decodes the next frames meanwhile. A frame is `(8h, 8w, 3)` float32 in 0..255 on the CPU, so that it
    can still be blended without rounding.
    Frames are decoded in as few tiles as `budget` bytes of the device's memory allow. If the memory runs out
    and the tiles `may_shrink`, `take` is called again with all frames, decoded in more tiles.

    Args:
        starts: the latent frames at which tiles begin in time; None for those of the VAE itself.

    Raises:
        MachineError: a pixel is not finite.
        torch.OutOfMemoryError: the tiles do not fit, or not even the smallest.
    """
    latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    height, width = (8 * side for side in latents.shape[-2:])
    *tilings, smallest = tilings_of(height, width)
    tilings = [*(t for t in tilings if t.bytes_to_decode(vae) <= budget), smallest]
    starts = tile_starts(latents.shape[2]) if starts is None else starts
    while True:
        tiling = tilings.pop(0)
        try:
            with closing(_decode_in_time(latents, vae, tiling, starts)) as frames:
                return (yield from take(frames))
        except RuntimeError as error:
            if not (may_shrink and tilings and is_out_of_memory(error)):
                raise
        logger.info("out of memory with tiles of %dx%d", tiling.height, tiling.width)


def _decode_in_time(
    latents: torch.Tensor, vae: "AutoencoderKLHunyuanVideo", tiling: Tiling, starts: Sequence[int]
) -> Generator[torch.Tensor, None, None]:
    """Yield frames on the CPU; a GPU's are fetched when the next tile is queued, so that it stays busy."""
    # High priority: its work is short, and a whole window is queued on the other stream.
    stream = torch.cuda.Stream(vae.device, priority=-1) if vae.device.type == "cuda" else None
    before: Iterator[torch.Tensor] = iter(())
    with closing(_pixels_in_time(latents, vae, tiling, starts)) as tiles:
        for pixels in tiles:
            newest = _fetch(pixels, stream)
            yield from before if stream is not None else newest
            before = newest if stream is not None else iter(())
        yield from before


def _pixels_in_time(
    latents: torch.Tensor, vae: "AutoencoderKLHunyuanVideo", tiling: Tiling, starts: Sequence[int]
) -> Generator[torch.Tensor, None, None]:
    """Yield pieces `(1, 3, n, height, width)` of the VAE's `_temporal_tiled_decode`, as each is queued.

    Unlike the library, which always decodes to the last latent frame, it decodes only tiles at `starts`.
    """
    tiling.apply(vae)
    logger.info("decoding in tiles of %dx%d", tiling.height, tiling.width)
    vae.use_framewise_decoding = False  # what comes in is one tile
    tail: torch.Tensor | None = None
    try:
        for start in starts:
            tile = vae.decode(latents[:, :, start : start + TILE_LATENTS]).sample
            if tail is not None:
                tile = vae.blend_t(tail, tile[:, :, 1:], TILE_BLEND)
            is_last = start == starts[-1]
            tail = tile[:, :, -TILE_BLEND:]
            yield tile if is_last else tile[:, :, :-TILE_BLEND]
    finally:
        vae.decoder.free_buffers()


def _fetch(pixels: torch.Tensor, stream: "torch.cuda.Stream | None") -> Iterator[torch.Tensor]:
    """Return pixels `(1, 3, n, height, width)`, queued by now, as frames that are copied on demand.

    Those on a GPU are copied over `stream`, which waits for these alone, not for what is queued behind them.
    """
    queued = None if stream is None else torch.cuda.current_stream(pixels.device).record_event()

    def frames() -> Iterator[torch.Tensor]:
        if stream is not None and queued is not None:
            stream.wait_event(queued)
        for each in pixels[0].unbind(1):
            with torch.cuda.stream(stream):
                frame = _to_frame(each)
            yield frame

    return frames()


def _to_frame(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels `(3, height, width)` as a frame on the CPU."""
    if not torch.isfinite(pixels).all():
        raise MachineError("not_a_number_in_pixels")
    frame = pixels.permute(1, 2, 0).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return frame.clamp_(-1, 1).add_(1).mul_(127.5).cpu()


def watch_for_black(
    frames: Iterable[torch.Tensor], count: int, pictures: Iterable[np.ndarray]
) -> Iterator[torch.Tensor]:
    """Yield the frames unchanged.

    Raises:
        MachineError: in the end, if the first `count` were all black although none of the job's pictures is.
    """
    brightest = 0.0
    for number, frame in enumerate(frames):
        if number < count and brightest <= BLACK_LEVEL:
            brightest = max(brightest, float(frame.max()))
        yield frame
    if brightest <= BLACK_LEVEL < min(picture.max() for picture in pictures):
        raise MachineError("black_section")

"""Between pixels and latents. Pictures are uint8, latents are scaled as the transformer sees them."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from .errors import MachineError

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

BLACK_LEVEL = 3
"""A section without one pixel brighter than this (of 255) is black."""


@torch.inference_mode()
def encode_picture(picture: np.ndarray, vae: "AutoencoderKLHunyuanVideo") -> torch.Tensor:
    """Encode `(height, width, 3)` uint8 to latents `(1, 16, 1, height/8, width/8)` float32 on the CPU.

    Takes the posterior's mode, not a sample, so that the seed alone decides the video.
    """
    pixels = torch.from_numpy(picture.copy()).float() / 127.5 - 1
    pixels = rearrange(pixels, "h w c -> 1 c 1 h w").to(vae.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    return latents.float().cpu()


@torch.inference_mode()
def decode_latents(latents: torch.Tensor, vae: "AutoencoderKLHunyuanVideo") -> torch.Tensor:
    """Decode latents `(1, 16, t, h, w)` to frames `(4t - 3, 8h, 8w, 3)` on the CPU.

    The frames are float32 in 0..255, so that they can still be blended without rounding.

    Raises:
        MachineError: a pixel is not a number.
    """
    latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    pixels = vae.decode(latents).sample[0]
    if not torch.isfinite(pixels).all():
        raise MachineError("not_a_number_in_pixels")
    return rearrange(pixels.clamp(-1, 1).float().cpu().add_(1).mul_(127.5), "c t h w -> t h w c")


def check_not_black(frames: torch.Tensor, start_picture: np.ndarray) -> None:
    """Notice a section that came out all black although the start picture is not.

    Raises:
        MachineError: it did.
    """
    if start_picture.max() > BLACK_LEVEL and float(frames.max()) <= BLACK_LEVEL:
        raise MachineError("black_section")


def preview_latents(latents: torch.Tensor) -> np.ndarray:
    """A rough picture of latents `(1, 16, t, h, w)`, frames side by side: `(h, t*w, 3)` uint8."""
    colours = torch.einsum("bcthw,cr->bthwr", latents.float().cpu(), torch.tensor(LATENT_RGB))
    colours = (colours + torch.tensor(LATENT_RGB_BIAS)).clamp(0, 1) * 255
    return rearrange(colours.round().to(torch.uint8), "1 t h w c -> h (t w) c").numpy()


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

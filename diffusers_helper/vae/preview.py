"""A rough picture of latents without the VAE, cheap enough for every step."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange

LATENT_RGB = (
    (-0.0395, -0.0331, 0.0445), (0.0696, 0.0795, 0.0518), (0.0135, -0.0945, -0.0282),
    (0.0108, -0.0250, -0.0765), (-0.0209, 0.0032, 0.0224), (-0.0804, -0.0254, -0.0639),
    (-0.0991, 0.0271, -0.0669), (-0.0646, -0.0422, -0.0400), (-0.0696, -0.0595, -0.0894),
    (-0.0799, -0.0208, -0.0375), (0.1166, 0.1627, 0.0962), (0.1165, 0.0432, 0.0407),
    (-0.2315, -0.1920, -0.1355), (-0.0270, 0.0401, -0.0821), (-0.0616, -0.0997, -0.0727),
    (0.0249, -0.0469, -0.1703),
)  # fmt: skip
LATENT_RGB_BIAS = (0.0259, -0.0192, -0.0761)
"""The linear fit from HunyuanVideo's 16 latent channels to colours, and the colour of a latent of zeros."""


def preview_latents(latents: torch.Tensor, own: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """Return rough frames of latents `(1, 16, t, h, w)`: `(t, h, w, 3)` uint8.

    A VAE that is not HunyuanVideo's has its `own` fit: 16 rows of colours, and that of zeros.

    Computed on the latents' device: less is copied to the CPU, which is busy with the weights.
    """
    fit = torch.tensor(own or (*LATENT_RGB, LATENT_RGB_BIAS), device=latents.device)
    to_rgb, bias = fit[:-1], fit[-1]
    colours = (torch.einsum("bcthw,cr->bthwr", latents.float(), to_rgb) + bias).clamp(0, 1) * 255
    return rearrange(colours.round().to(torch.uint8), "1 t h w c -> t h w c").cpu().numpy()

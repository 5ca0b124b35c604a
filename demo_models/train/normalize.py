"""Giving a trained VAE latents that a transformer likes: every channel about deviation 1, none far from 0.

Channels are shifted, scaled and turned by the two convolutions of one pixel that stand between the encoder,
the latents and the decoder: the pictures stay the same, only the latents between them are others. They are
turned and shifted so that the engine's fixed map from latents to colours, made for HunyuanVideo's, previews
these, too. Only the posterior's mode keeps its meaning, and nobody reads more.
"""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from diffusers_helper.vae.preview import LATENT_RGB, LATENT_RGB_BIAS

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

SMALLEST_DEVIATION = 1e-3
"""A channel that hardly changes is not blown up."""
UNREAD_LOG_VARIANCE = -6.0


@torch.no_grad()
def normalize(vae: "AutoencoderKLHunyuanVideo", pixels: torch.Tensor) -> float:
    """Change `vae` in place by what it makes of `pixels` `(n, 3, frames, h, w)`; returns the deviation of its
    latents over all channels before `scaling_factor`, which is set to make it 1."""
    latents = vae.encode(pixels).latent_dist.mode().float()
    rows = latents.transpose(0, 1).flatten(1).T.double()
    mean = rows.mean(0)
    deviation = rows.std(0).clamp_min(SMALLEST_DEVIATION)
    turn = _preview_turn((latents - mean.float().view(1, -1, 1, 1, 1)) / _as_channels(deviation), pixels)
    forward = (turn.T / deviation).float()  # latents -> normalized ones, as a matrix
    backward = (turn.T * deviation).float().T
    _fold(vae, forward, backward, mean.float(), _preview_place(pixels))
    spread = vae.encode(pixels).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=round(1 / spread, 6))
    vae.register_to_config(latent_rgb=fit_preview(vae, pixels))
    return spread


@torch.no_grad()
def fit_preview(vae: "AutoencoderKLHunyuanVideo", pixels: torch.Tensor) -> list[list[float]]:
    """Return the linear map from scaled latents to colours that suits `pixels` best (`preview_latents`)."""
    first = vae.encode(pixels[:, :, :1]).latent_dist.mode().float()[:, :, 0] * vae.config.scaling_factor
    colours = functional.interpolate((pixels[:, :, 0].float() + 1) / 2, first.shape[-2:], mode="area")
    x, y = (values.transpose(0, 1).flatten(1).T.double().cpu() for values in (first, colours))
    fit = torch.linalg.lstsq(functional.pad(x, (0, 1), value=1.0), y).solution
    return [[round(value, 4) for value in row] for row in fit.tolist()]


def _as_channels(values: torch.Tensor) -> torch.Tensor:
    return values.float().view(1, -1, 1, 1, 1)


def _preview_turn(latents: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """The rotation `(16, 16)` for rows of latents after which the engine's map gives colours: the orthogonal
    Procrustes solution for the best linear map from these latents to the first frames' colours."""
    first = latents[:, :, 0]
    colours = functional.interpolate((pixels[:, :, 0].float() + 1) / 2, first.shape[-2:], mode="area")
    x = first.transpose(0, 1).flatten(1).T.double()
    y = colours.transpose(0, 1).flatten(1).T.double()
    ridge = 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    own = torch.linalg.solve(x.T @ x + ridge, x.T @ (y - y.mean(0)))  # (16, 3)
    fixed = torch.tensor(LATENT_RGB, dtype=x.dtype, device=x.device)
    u, _, v = torch.linalg.svd(own @ fixed.T)
    return u @ v


def _preview_place(pixels: torch.Tensor) -> torch.Tensor:
    """The shortest latent `(16,)` that the engine's map shows as the mean colour."""
    colour = (pixels.float().mean((0, 2, 3, 4)) + 1) / 2 - torch.tensor(LATENT_RGB_BIAS).to(pixels)
    return torch.linalg.pinv(torch.tensor(LATENT_RGB).to(colour).T) @ colour


def _fold(
    vae: "AutoencoderKLHunyuanVideo",
    forward: torch.Tensor,
    backward: torch.Tensor,
    mean: torch.Tensor,
    place: torch.Tensor,
) -> None:
    """Put `new = forward (old - mean) + place` behind the encoder and its inverse before the decoder."""
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    weight = quant.weight[:channels, :, 0, 0, 0].clone()
    quant.weight[:channels, :, 0, 0, 0] = forward @ weight
    quant.bias[:channels] = forward @ (quant.bias[:channels] - mean) + place
    quant.weight[channels:] = 0
    quant.bias[channels:] = UNREAD_LOG_VARIANCE
    weight = post.weight[:, :, 0, 0, 0].clone()
    post.weight[:, :, 0, 0, 0] = weight @ backward
    post.bias += weight @ (mean - backward @ place)

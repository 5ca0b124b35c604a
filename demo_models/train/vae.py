"""Training the demo's VAE: pictures first, which are cheap, then clips as the engine decodes them.

The engine decodes in tiles of five latent frames, every third one a first: a tile begins with a latent that
stands for four frames, decodes it to one, and throws that away or fades it out (diffusers' framewise
decoding). So clips are encoded as a whole, and decoded from their first or their second latent frame on.
"""

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from .canvas import draw_canvases
from .clips import ClipSize, draw_clips, draw_views, make_scene, render
from .seeds import Dice
from .sizes import VaeSize, vae_config

if TYPE_CHECKING:
    from diffusers import AutoencoderKLHunyuanVideo

L1, SQUARES, EDGES, STRUCTURE, PRIOR = 0.5, 4.0, 0.25, 0.1, 5e-4
"""The weights of the parts of the loss."""
FIRST_LOG_VARIANCE = -4.0
"""The initial log variance: almost no noise on the latents, so that there is something to learn."""
HELD_OUT = "held-out"
HELD_OUT_PICTURES = 8
HELD_OUT_SIDE = 192
TILE_LATENTS = 5
LAST_START = 100
"""The last frame of a scene's motion at which a training clip may start."""


class VaeTask:
    """See `trainer.Task`."""

    def __init__(self, size: VaeSize, seed: int, device: torch.device, *, compiled: bool = False) -> None:
        self.size, self.seed, self.device = size, seed, device
        self._vae = make_vae(size, seed).to(device)
        fold_single_frames(self._vae)
        self._chunk: tuple[int, torch.Tensor] | None = None
        if compiled:
            self._vae.encoder.compile()
            self._vae.decoder.compile()

    @property
    def model(self) -> "AutoencoderKLHunyuanVideo":
        return self._vae

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        dice = Dice(self.device, self.seed, "vae", step)
        is_clip = step >= self.size.clips_from and bool(dice.chance(self.size.clip_part, 1))
        pixels = self._clips(step, dice) if is_clip else self._pictures(step, dice)
        begin = int(dice.integers(2, 1)) if is_clip else 0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            mean, log_variance = encode(self._vae, pixels)
            noise = dice.normal(*mean.shape)
            latents = mean + noise * torch.exp(0.5 * log_variance)
            seen = decode(self._vae, latents[:, :, begin : begin + TILE_LATENTS])
        wanted = pixels[:, :, 4 * begin :][:, :, : seen.shape[2]]
        total, squares = picture_loss(seen.float(), wanted)
        prior = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        psnr = -10 * torch.log10(squares.detach() / 4)
        kind = "clip" if is_clip else "picture"
        return total + PRIOR * prior, {f"psnr_{kind}": psnr, "prior": prior.detach()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """PSNR on pictures and on a clip of held-out seeds, through diffusers' own encoding and decoding."""
        dice = Dice(self.device, self.seed, HELD_OUT)
        side = min(HELD_OUT_SIDE, 2 * self.size.picture_side)
        canvases = draw_canvases(dice, HELD_OUT_PICTURES, self.size.canvas_side)
        pictures = draw_views(dice, canvases, HELD_OUT_PICTURES, side, side)[:, :, None]
        clip_size = ClipSize(33, self.size.clip_side, self.size.clip_side)
        clips, _ = draw_clips(dice, 2, clip_size)
        found, largest = [], 0.0
        for pixels in (pictures, clips):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                seen = self._vae.decode(self._vae.encode(pixels).latent_dist.mode()).sample.float()
            errors = (seen.clamp(-1, 1) - pixels).square().mean((1, 2, 3, 4))
            found.append((-10 * torch.log10(errors / 4)).mean().item())
            largest = max(largest, seen.abs().max().item())
        return {"psnr_pictures": found[0], "psnr_clips": found[1], "largest_pixel": largest}

    def _canvases(self, step: int) -> torch.Tensor:
        """The canvases of a step; they change every `canvas_steps`."""
        chunk = step // self.size.canvas_steps
        if self._chunk is None or self._chunk[0] != chunk:
            dice = Dice(self.device, self.seed, "vae canvases", chunk)
            parts = [
                draw_canvases(dice, len(part), self.size.canvas_side)
                for part in torch.arange(self.size.canvases).split(16)
            ]
            self._chunk = chunk, torch.cat(parts)
        return self._chunk[1]

    def _pictures(self, step: int, dice: Dice) -> torch.Tensor:
        size = self.size
        views = draw_views(
            dice, self._canvases(step), size.picture_batch, size.picture_side, size.picture_side
        )
        return views[:, :, None]

    def _clips(self, step: int, dice: Dice) -> torch.Tensor:
        canvases = self._canvases(step)
        size = ClipSize(self.size.clip_frames, self.size.clip_side, self.size.clip_side)
        scene = make_scene(dice, canvases[dice.integers(len(canvases), self.size.clip_batch)], size)
        times = torch.arange(size.frames, device=self.device) + dice.integers(LAST_START, 1)
        return render(scene, size, times)


def make_vae(size: VaeSize, seed: int) -> "AutoencoderKLHunyuanVideo":
    """A new VAE with weights that depend on the seed alone. At first its blocks let everything pass as it is:
    a trial learned faster so."""
    from diffusers import AutoencoderKLHunyuanVideo

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLHunyuanVideo(**vae_config(size))
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith(".conv2"):
                nn.init.zeros_(module.conv.weight)
        vae.quant_conv.bias[vae.config.latent_channels :] = FIRST_LOG_VARIANCE
    return vae


def encode(vae: "AutoencoderKLHunyuanVideo", pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and logarithm of the variance of the latents of a whole clip, float32."""
    mean, log_variance = vae.quant_conv(vae.encoder(pixels)).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: "AutoencoderKLHunyuanVideo", latents: torch.Tensor) -> torch.Tensor:
    """Pixels of latents, all at once."""
    return vae.decoder(vae.post_quant_conv(latents))


def picture_loss(seen: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of pixels `(batch, 3, frames, height, width)`, and their mean squared error."""
    seen, wanted = (rearrange(pixels, "b c t h w -> (b t) c h w") for pixels in (seen, wanted))
    difference = seen - wanted
    squares = difference.square().mean()
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    structure = 1 - torch.stack(list(_similarities(seen, wanted))).mean()
    total = L1 * difference.abs().mean() + SQUARES * squares + EDGES * edges + STRUCTURE * structure
    return total, squares


def _similarities(seen: torch.Tensor, wanted: torch.Tensor, scales: int = 3) -> Iterator[torch.Tensor]:
    """Structural similarity (Wang et al., 2004) in windows of 7 pixels, at falling scales."""
    for _ in range(scales):
        yield _similarity(seen, wanted)
        seen, wanted = functional.avg_pool2d(seen, 2), functional.avg_pool2d(wanted, 2)
        if min(seen.shape[-2:]) < 7:
            return


def _similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    def blur(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values, 7, stride=2)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    low, high = 0.0004, 0.0036  # (0.01 * 2)^2 and (0.03 * 2)^2
    light = (2 * mean_a * mean_b + low) / (mean_a**2 + mean_b**2 + low)
    return (light * (2 * both + high) / (variance_a + variance_b + high)).mean()


def fold_single_frames(vae: nn.Module) -> None:
    """Let the causal convolutions see single frames as pictures: the same numbers, a third of the work.

    A single frame is padded in time by copies of itself, so the kernel's three times can be added up.
    """
    for module in vae.modules():
        if type(module).__name__ == "HunyuanVideoCausalConv3d":
            whole = type(module).forward
            module.forward = types.MethodType(_folded(whole), module)


def _folded(whole: Any) -> Any:
    def forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
        if hidden_states.shape[2] != 1:
            return whole(self, hidden_states)
        conv = self.conv
        picture = functional.pad(hidden_states[:, :, 0], self.time_causal_padding[:4], mode=self.pad_mode)
        seen = functional.conv2d(picture, conv.weight.sum(2), conv.bias, conv.stride[1:])
        return seen[:, :, None]

    return forward

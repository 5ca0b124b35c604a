"""Pictures that are drawn, large and full of things, with the statistics of photographs.

Noise with falling spectra, skies and grounds, and above all occlusion: shapes of all sizes laid over each
other ("dead leaves": D. Mumford and B. Gidas, Stochastic models for generic images, 2001), each with its
own colour, texture, shading, soft or hard edge and shadow. Everything is batched and runs on the device of
the dice.

Canvases are `(batch, 3, side, side)` in -1..1.
"""

import torch
from torch.nn import functional

from .seeds import Dice

SHAPES = 56
"""Shapes laid over each other on a canvas, besides faces."""
FACES = 2
PALETTE = 6


def draw_canvases(dice: Dice, count: int, side: int) -> torch.Tensor:
    """Draw `count` canvases `(count, 3, side, side)`."""
    y, x = _axes(side, dice.device)
    palette = _palette(dice, count)
    textures = _textures(dice, count, side)
    canvas = _background(dice, palette, textures, y)
    for number in range(SHAPES):
        canvas = _lay_shape(dice, canvas, palette, textures, (x, y), number / SHAPES)
    for _ in range(FACES):
        canvas = _lay_face(dice, canvas, textures, (x, y))
    return _photograph(dice, canvas, x, y)


def spectral_noise(dice: Dice, count: int, layers: int, side: int) -> torch.Tensor:
    """Noise `(count, layers, side, side)` of mean 0 and deviation 1 whose amplitudes fall with the frequency.

    Each layer has its own slope, from rough to cloudy, and its own stretched direction.
    """
    frequencies = torch.fft.fftfreq(side, device=dice.device) * side
    fy, fx = torch.meshgrid(frequencies, frequencies[: side // 2 + 1].abs(), indexing="ij")
    angle = dice.uniform(count, layers, 1, 1, high=3.1416)
    stretch = 1 + 3 * dice.uniform(count, layers, 1, 1) ** 3
    along, across = fx * angle.cos() + fy * angle.sin(), fy * angle.cos() - fx * angle.sin()
    radius = ((along * stretch) ** 2 + across**2).sqrt().clamp_min_(1)
    slope = dice.uniform(count, layers, 1, 1, low=0.8, high=2.2)
    shape = (count, layers, side, side // 2 + 1)
    waves = torch.complex(dice.normal(*shape), dice.normal(*shape)) * radius**-slope
    noise = torch.fft.irfft2(waves, s=(side, side))
    noise = noise - noise.mean((-2, -1), keepdim=True)
    return noise / noise.std((-2, -1), keepdim=True).clamp_min(1e-6)


def _axes(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates `(side, side)` from -1 to 1, y and x."""
    line = torch.linspace(-1, 1, side, device=device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def _palette(dice: Dice, count: int) -> torch.Tensor:
    """Colours `(count, PALETTE, 3)` in 0..1, as of one photograph: lights and darks, few hues, little
    colour."""
    light = dice.uniform(count, PALETTE, 1) ** 1.2
    hue = dice.uniform(count, 1, 1) + 0.12 * dice.normal(count, PALETTE, 1)
    hue = torch.where(dice.chance(0.25, count, PALETTE, 1), dice.uniform(count, PALETTE, 1), hue)
    strength = dice.uniform(count, 1, 1, high=0.6) * dice.uniform(count, PALETTE, 1, low=0.3)
    phases = torch.tensor([0.0, 1 / 3, 2 / 3], device=dice.device)
    wave = 0.5 + 0.5 * torch.cos(6.2832 * (hue - phases))
    return (light * (1 - strength + 1.5 * strength * wave)).clamp(0.01, 1)


def _textures(dice: Dice, count: int, side: int) -> torch.Tensor:
    """Textures `(count, 8, side, side)`, about -1..1: noise of six kinds, stripes and a grid of tiles."""
    noise = spectral_noise(dice, count, 6, side)
    y, x = _axes(side, dice.device)
    angle = dice.uniform(count, 2, 1, 1, high=3.1416)
    rate = torch.exp(dice.uniform(count, 2, 1, 1, low=2.3, high=4.6)) * side / 512
    warp = 0.03 * noise[:, :2]
    u = x * angle.cos() + y * angle.sin() + warp
    v = y * angle.cos() - x * angle.sin() + warp
    stripes = torch.tanh(3 * torch.sin(rate[:, :1] * u[:, :1]))
    grid = torch.maximum(torch.cos(rate[:, 1:] * u[:, 1:]), torch.cos(rate[:, 1:] * v[:, 1:]))
    return torch.cat([noise, stripes, torch.tanh(8 * (grid - 0.9))], dim=1)


def _colour(dice: Dice, palette: torch.Tensor) -> torch.Tensor:
    """One colour `(count, 3, 1, 1)` of each palette, varied a little."""
    count = len(palette)
    chosen = palette[torch.arange(count, device=dice.device), dice.integers(PALETTE, count)]
    return (chosen * dice.uniform(count, 1, low=0.7, high=1.3)).clamp(0, 1)[..., None, None]


def _texture(dice: Dice, textures: torch.Tensor) -> torch.Tensor:
    """One texture `(count, 1, side, side)` each, moved to another place, mostly faint."""
    count, kinds, side, _ = textures.shape
    chosen = textures[torch.arange(count, device=dice.device), dice.integers(kinds, count)][:, None]
    shift = int(dice.integers(side, 1))
    strength = 0.3 * dice.uniform(count, 1, 1, 1) ** 1.5
    return torch.roll(chosen, (shift, side - shift // 2), (-2, -1)) * strength


def _background(dice: Dice, palette: torch.Tensor, textures: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Clouds of colours, or a sky above a ground."""
    count = len(palette)
    clouds, bumps = textures[:, :1] * 0.5, textures[:, 1:2]
    near, far, sky, light = (_colour(dice, palette) for _ in range(4))
    mixed = torch.sigmoid(clouds * dice.uniform(count, 1, 1, 1, low=0.5, high=3))
    plain = near * mixed + far * (1 - mixed) + _texture(dice, textures)
    horizon = dice.uniform(count, 1, 1, 1, low=-0.4, high=0.5) + 0.05 * bumps.mean(-2, keepdim=True)
    above = (horizon - y).clamp_min(0)
    bright = 0.55 + 0.45 * sky
    heaven = bright + (light.clamp_min(0.5) - bright) * torch.exp(-2.5 * above)
    heaven = heaven + 0.12 * torch.relu(clouds)
    depth = 1 - torch.exp(-3 * (y - horizon).clamp_min(0))
    ground = far * (1 - depth) + near * depth + (0.3 + 0.7 * depth) * 1.5 * _texture(dice, textures)
    edge = torch.sigmoid((y - horizon) * 150)
    landscape = heaven * (1 - edge) + ground * edge
    return torch.where(dice.chance(0.45, count, 1, 1, 1), landscape, plain)


def _lay_shape(
    dice: Dice,
    canvas: torch.Tensor,
    palette: torch.Tensor,
    textures: torch.Tensor,
    axes: tuple[torch.Tensor, torch.Tensor],
    late: float,
) -> torch.Tensor:
    """Lay one shape over each canvas; those laid late are the smaller ones."""
    count = len(canvas)
    x, y = axes
    cx, cy = (dice.uniform(count, 1, 1, 1, low=-1.1, high=1.1) for _ in range(2))
    largest = 0.7 * (1 - late) ** 2 + 0.03
    size = largest * dice.uniform(count, 1, 1, 1, low=0.25)
    aspect = torch.exp(0.5 * dice.normal(count, 1, 1, 1)).clamp(0.25, 4)
    turn = dice.normal(count, 1, 1, 1) * 0.5
    u = ((x - cx) * turn.cos() + (y - cy) * turn.sin()) / aspect
    v = (y - cy) * turn.cos() - (x - cx) * turn.sin()
    power = torch.where(dice.chance(0.5, count, 1, 1, 1), 2.0, 12.0)  # ellipse or box
    distance = (u.abs() ** power + v.abs() ** power + 1e-12) ** (1 / power) - size
    distance = distance + 0.25 * size * dice.chance(0.5, count, 1, 1, 1) * textures[:, 2:3] * 0.4
    sharp = torch.exp(dice.uniform(count, 1, 1, 1, low=3.0, high=6.2))
    shade = 0.25 * (dice.normal(count, 1, 1, 1) * u + dice.normal(count, 1, 1, 1) * v) / size
    colour = _colour(dice, palette) * (1 + shade.clamp(-0.5, 0.5)) + _texture(dice, textures)
    shadow = 0.45 * torch.sigmoid(-(distance - 0.03) * 30) * dice.chance(0.5, count, 1, 1, 1)
    there = torch.sigmoid(-distance * sharp)
    return canvas * (1 - shadow) * (1 - there) + colour * there


def _lay_face(
    dice: Dice, canvas: torch.Tensor, textures: torch.Tensor, axes: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Lay something like a face over a third of the canvases: hair, skin, eyes and a mouth."""
    count = len(canvas)
    cx, cy = (dice.uniform(count, 1, 1, 1, low=-0.7, high=0.7) for _ in range(2))
    size = dice.uniform(count, 1, 1, 1, low=0.06, high=0.35)
    x, y = (axes[0] - cx) / size, (axes[1] - cy) / size
    light = dice.uniform(count, 1, 1, 1, low=0.25, high=0.95)
    tone = torch.tensor([1.0, 0.76, 0.62], device=dice.device)[:, None, None] * light
    dark = dice.uniform(count, 3, 1, 1, high=0.35)
    skin = tone * (1 + 0.18 * x - 0.1 * y) + 0.03 * textures[:, :1]
    face = canvas
    for colour, (px, py), (rx, ry) in (
        (dark + 0.06 * textures[:, 3:4], (0.0, -0.25), (0.92, 1.15)),
        (skin, (0.0, 0.0), (0.72, 1.0)),
        (dark, (-0.28, -0.15), (0.12, 0.07)),
        (dark, (0.28, -0.15), (0.12, 0.07)),
        (tone * 0.7, (0.0, 0.15), (0.09, 0.2)),
        (tone * torch.tensor([0.85, 0.45, 0.45], device=dice.device)[:, None, None], (0, 0.5), (0.3, 0.08)),
    ):
        there = torch.sigmoid(-(((x - px) / rx) ** 2 + ((y - py) / ry) ** 2 - 1) * 12)
        face = face * (1 - there) + colour * there
    return torch.where(dice.chance(0.33, count, 1, 1, 1), face, canvas)


def _photograph(dice: Dice, canvas: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Light from one side, exposure, contrast, some blur, some grain: values in -1..1."""
    count = len(canvas)
    slope = 0.2 * (dice.normal(count, 1, 1, 1) * x + dice.normal(count, 1, 1, 1) * y)
    canvas = canvas.clamp(0, 1.2) * (1 + slope.clamp(-0.5, 0.5))
    canvas = canvas.clamp_min(1e-3) ** torch.exp(0.25 * dice.normal(count, 1, 1, 1))
    canvas = (canvas - 0.5) * dice.uniform(count, 1, 1, 1, low=0.7, high=1.2) + 0.5
    blurred = functional.avg_pool2d(functional.pad(canvas, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    canvas = torch.where(dice.chance(0.4, count, 1, 1, 1), blurred, canvas)
    canvas = canvas + 0.012 * dice.uniform(count, 1, 1, 1) * dice.normal(*canvas.shape)
    return canvas.clamp(0, 1) * 2 - 1

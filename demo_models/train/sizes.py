"""The sizes of the models and of their training: the demo's own size, and a toy for tests on a CPU."""

from dataclasses import dataclass, field
from typing import Any

from .clips import ClipSize


@dataclass(frozen=True)
class TextSize:
    """The text encoders. Two of the Llama's layers are there for the format's sake: nobody reads them."""

    width: int = 128
    layers: int = 4
    pooled_width: int = 96
    pooled_layers: int = 2
    steps: int = 500
    batch: int = 48
    bank: int = 1024
    """Prompts that are encoded once, for the transformer's training."""


@dataclass(frozen=True)
class VaeSize:
    """The VAE's training. First pictures only, then from step `clips_from` on clips in `clip_part` of the
    steps.

    `picture_side` and `clip_side` are pixels, `canvas_side` that of the canvases they are taken from.
    """

    channels: tuple[int, int, int, int] = (16, 32, 96, 96)
    groups: int = 8
    steps: int = 7000
    clips_from: int = 4000
    clip_part: float = 0.5
    picture_batch: int = 64
    picture_side: int = 128
    clip_batch: int = 8
    clip_side: int = 96
    clip_frames: int = 21
    canvas_side: int = 448
    canvases: int = 96
    canvas_steps: int = 60
    rate: float = 1.5e-3
    average: float = 0.999


@dataclass(frozen=True)
class TransformerSize:
    """The transformer's training. A chunk is a set of clips, drawn and encoded, that serves `chunk_steps`
    steps: `groups` sizes of pictures, `clips` clips of each."""

    heads: int = 4
    head_dim: int = 64
    layers: int = 2
    single_layers: int = 5
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    image_width: int = 64
    image_side: int = 64
    steps: int = 6000
    batch: int = 24
    chunk_steps: int = 400
    groups: int = 3
    clips: int = 48
    clip_latents: int = 37
    draw_at_once: int = 8
    rate: float = 6e-4
    average: float = 0.999
    views: tuple[tuple[int, int], ...] = (
        *((192, 192), (192, 192), (160, 192), (192, 160), (160, 224), (224, 160)),
        *((128, 256), (256, 128)),
    )
    """Heights and widths: the buckets of the demo's resolution."""
    unit: float = 1.0

    def clip_size(self, view: tuple[int, int]) -> ClipSize:
        return ClipSize(4 * self.clip_latents - 3, *view, unit=self.unit)


@dataclass(frozen=True)
class Size:
    """All of it, by name."""

    name: str
    text: TextSize = field(default_factory=TextSize)
    vae: VaeSize = field(default_factory=VaeSize)
    transformer: TransformerSize = field(default_factory=TransformerSize)


DEMO = Size("demo")
TOY = Size(
    "toy",
    TextSize(width=32, layers=3, pooled_width=16, pooled_layers=1, steps=30, batch=8, bank=48),
    VaeSize(
        channels=(8, 8, 16, 16),
        groups=4,
        steps=60,
        clips_from=20,
        picture_batch=4,
        picture_side=32,
        clip_batch=1,
        clip_side=32,
        canvas_side=64,
        canvases=4,
        canvas_steps=10,
        average=0.9,
    ),
    TransformerSize(
        heads=2,
        head_dim=16,
        layers=1,
        single_layers=1,
        rope_axes=(4, 6, 6),
        image_width=16,
        image_side=32,
        steps=40,
        batch=2,
        chunk_steps=6,
        groups=1,
        clips=2,
        clip_latents=10,
        draw_at_once=2,
        average=0.9,
        views=((32, 32), (32, 48)),
        unit=1 / 4,
    ),
)
"""Learns next to nothing, in seconds."""
SIZES = {size.name: size for size in (DEMO, TOY)}


def vae_config(size: VaeSize) -> dict[str, Any]:
    """The config of AutoencoderKLHunyuanVideo, without attention, because it meets sizes not trained on."""
    return {
        "block_out_channels": size.channels,
        "layers_per_block": 1,
        "norm_num_groups": size.groups,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    }


def transformer_config(size: TransformerSize, text: TextSize) -> dict[str, Any]:
    """The config of HunyuanVideoFramepackTransformer3DModel, with all of its parts."""
    return {
        "num_attention_heads": size.heads,
        "attention_head_dim": size.head_dim,
        "num_layers": size.layers,
        "num_single_layers": size.single_layers,
        "num_refiner_layers": 1,
        "rope_axes_dim": size.rope_axes,
        "text_embed_dim": text.width,
        "pooled_projection_dim": text.pooled_width,
        "has_image_proj": True,
        "image_proj_dim": size.image_width,
        "has_clean_x_embedder": True,
    }

"""The difference that tiles make: pixels and edges of a video decoded in tiles, against whole frames.

With little memory, decoding goes on in tiles that overlap by 64 pixels, in each of which a norm sees only
that tile. The demo's models with the first window of a video that the engine makes (or finds in `--work`),
and random weights with random latents; ours in tiles, and diffusers' decoder in its default ones.

    venv/bin/python -m benchmarks.tiles --work DIR
"""

import argparse
import copy
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.context import DEMO, LUMA, RANDOM, ROOT, demo_latents
from demo_models.judging.measure import SMALLEST_STEP, psnr
from diffusers_helper.models.architectures import build_empty, make_vae
from diffusers_helper.request import GenerationRequest
from diffusers_helper.vae.codec import TILE_LATENTS
from diffusers_helper.vae.decoder import WindowDecoder
from diffusers_helper.vae.tiling import Tiling, tilings_of
from diffusers_helper.weights.filling import fill
from diffusers_helper.weights.model_files import find_models

REQUEST = {"prompt": "The camera moves in.", "seconds": 1, "steps": 8, "seed": 1, "resolution": 384}
DEFAULT = Tiling(256, 256, 192, 192)
"""The tiles of diffusers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where the demo's video lies or is made")
    options = parser.parse_args()
    picture = str(ROOT / "examples" / "coffee.png")
    request = GenerationRequest.from_dict({"start_image": picture, **REQUEST})
    latents = demo_latents(options.work, "tiles", request)[:, :, :TILE_LATENTS]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, models, given in (("demo", DEMO, latents), ("random", RANDOM, noise)):
        for row in measure(models, given):
            rows.append({"video": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-cpu-tiles.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def measure(models: Path, latents: torch.Tensor) -> Iterator[dict[str, Any]]:
    """A row for each tiling of ours, and for diffusers'."""
    part = find_models(models).vae
    theirs = build_empty(part, make_vae)
    fill(theirs, part.checkpoint, torch.device("cpu"), torch.float32)
    ours = copy.deepcopy(theirs)
    ours.decoder = WindowDecoder(ours.decoder)
    whole, *tilings = tilings_of(*(8 * side for side in latents.shape[-2:]))
    for name, vae, ways in (("ours", ours, tilings), ("diffusers", theirs, [DEFAULT])):
        wanted = decode(vae, whole, latents)
        for tiling in ways:
            found = decode(vae, tiling, latents)
            yield {"decoder": name, "tile": [tiling.height, tiling.width], **compare(found, wanted, tiling)}


@torch.inference_mode()
def decode(vae: Any, tiling: Tiling, latents: torch.Tensor) -> np.ndarray:
    """Frames `(n, height, width, 3)`, 0..255, not rounded."""
    tiling.apply(vae)
    vae.use_framewise_decoding = True
    pixels = vae.decode(latents / vae.config.scaling_factor).sample[0]
    return ((pixels.permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).numpy()


def compare(found: np.ndarray, wanted: np.ndarray, tiling: Tiling) -> dict[str, float]:
    """Measure how far pixels are apart, in levels, and how much larger a step at a tile's edge is."""
    difference = np.abs(found - wanted)
    found, wanted = found @ LUMA, wanted @ LUMA
    return {
        "mean": round(float(difference.mean()), 3),
        "largest": round(float(difference.max()), 1),
        "luma_psnr_worst_frame": round(min(psnr(a, b) for a, b in zip(found, wanted, strict=True)), 1),
        "seam": max(
            seam(found, wanted, tiling.height, tiling.stride_height),
            seam(found.swapaxes(1, 2), wanted.swapaxes(1, 2), tiling.width, tiling.stride_width),
        ),
    }


def seam(found: np.ndarray, wanted: np.ndarray, size: int, stride: int) -> float:
    """The largest step from row to row at a tile's edge, by the same one in whole frames; 1 is no seam."""
    height = found.shape[1]
    edges = {edge for top in range(0, height, stride) for edge in (top, top + size) if 0 < edge < height}
    return round(max((_step(found, edge) / _step(wanted, edge) for edge in edges), default=1.0), 3)


def _step(frames: np.ndarray, row: int) -> float:
    return max(float(np.abs(frames[:, row] - frames[:, row - 1]).mean()), SMALLEST_STEP)


if __name__ == "__main__":
    main()

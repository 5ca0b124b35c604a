"""What decoding takes in tiles of each size: seconds, and memory against the estimate that picks the tiles.

python benchmarks/vae.py --weights DIR [--width 640 --height 608] [--latents 18]
"""

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.random_weights import write_vae  # noqa: E402
from benchmarks.step import GIB  # noqa: E402
from diffusers_helper.architectures import build_empty, make_vae  # noqa: E402
from diffusers_helper.vae import Tiling, tilings_of  # noqa: E402
from diffusers_helper.weights import fill  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=608)
    parser.add_argument("--latents", type=int, default=18)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    part = write_vae(options.weights)
    vae = build_empty(part, make_vae)
    fill(vae, part.checkpoint, torch.device("cuda"), torch.float16)
    latents = torch.randn(1, 16, options.latents, options.height // 8, options.width // 8)
    default = Tiling(256, 256, 192, 192)
    rows = []
    for tiling in [default, *tilings_of(options.height, options.width)]:
        rows.append(measure(vae, tiling, latents.to("cuda", torch.float16)))
        print(json.dumps(rows[-1]), flush=True)
    card = torch.cuda.get_device_name().replace(" ", "-")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{date.today()}-{card}-vae.json").write_text(json.dumps(rows, indent=1) + "\n")


@torch.inference_mode()
def measure(vae: torch.nn.Module, tiling: Tiling, latents: torch.Tensor) -> dict:
    """Decode twice with a tiling; the second time, and the memory it took beyond what was there."""
    tiling.apply(vae)
    for _ in range(2):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        vae.decode(latents)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    return {
        "tile": [tiling.height, tiling.width],
        "seconds": round(seconds, 3),
        "peak_gib": round((torch.cuda.max_memory_allocated() - before) / GIB, 3),
        "reserved_gib": round((torch.cuda.max_memory_reserved() - before) / GIB, 3),
        "estimate_gib": round(tiling.bytes_needed(vae) / GIB, 3),
    }


if __name__ == "__main__":
    main()

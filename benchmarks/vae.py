"""The cost of decoding: diffusers' decoder against ours, in seconds, memory and distance from float32.

Random weights in the real shapes. Decodes one window of 5 latent frames both ways, and in float32 (in tiles
of the picture's middle, where all of it does not fit); then `--latents` frames with as many tiles as each
budget allows, and at last whole frames, each brought to the CPU.

    python benchmarks/vae.py --weights DIR [--width 640 --height 608] [--latents 18]
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu import parse_gpu_options  # noqa: E402
from benchmarks.measuring import GIB  # noqa: E402
from benchmarks.random_weights import write_vae  # noqa: E402
from diffusers_helper.models.architectures import build_empty, make_vae  # noqa: E402
from diffusers_helper.vae.codec import TILE_LATENTS, decode_to  # noqa: E402
from diffusers_helper.vae.decoder import WindowDecoder  # noqa: E402
from diffusers_helper.vae.tiling import Tiling, tilings_of  # noqa: E402
from diffusers_helper.weights.filling import fill  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=608)
    parser.add_argument("--latents", type=int, default=18)
    parser.add_argument("--no-peers", action="store_true", help="diffusers' decoder in tiles only")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parse_gpu_options(parser)
    part = write_vae(options.weights)
    vae = build_empty(part, make_vae)
    fill(vae, part.checkpoint, torch.device("cuda"), torch.float16)
    vae.encoder = torch.nn.Identity()
    latents = torch.randn(
        (1, 16, options.latents, options.height // 8, options.width // 8),
        generator=torch.Generator().manual_seed(0),
    ).to("cuda", torch.float16)
    rows = []

    def note(row: dict) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    tilings = tilings_of(options.height, options.width)
    default = Tiling(256, 256, 192, 192)
    for tiling in [default] if options.no_peers else [default, tilings[0]]:
        note({"decoder": "diffusers", **measure(vae, tiling, latents)})
    note(compare(vae, latents[:, :, :TILE_LATENTS]))
    vae.decoder = WindowDecoder(vae.decoder)
    for tiling in tilings[:7]:
        estimate = round(tiling.bytes_to_decode(vae) / GIB, 3)
        note({"decoder": "ours", **measure(vae, tiling, latents), "estimate_gib": estimate})
    note({"decoder": "ours, frames fetched as in a job", **measure_fetched(vae, tilings[0], latents)})
    gpu = torch.cuda.get_device_name().replace(" ", "-")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{date.today()}-{gpu}-vae.json").write_text(json.dumps(rows, indent=1) + "\n")


@torch.inference_mode()
def compare(vae: torch.nn.Module, latents: torch.Tensor) -> dict:
    """One window, whole frames: how far each decoder in float16 is from the float32 one, relatively."""
    exact = copy.deepcopy(vae.decoder).float()(latents.float())
    theirs = vae.decoder(latents).float()
    ours = WindowDecoder(vae.decoder)(latents).float()
    norm = exact.norm()
    return {
        "compared": list(latents.shape),
        "diffusers_error": float((theirs - exact).norm() / norm),
        "our_error": float((ours - exact).norm() / norm),
        "between_both": float((ours - theirs).norm() / norm),
        "largest_between_both_levels": float((ours - theirs).abs().max() * 127.5),
        "largest_diffusers_levels": float((theirs - exact).abs().max() * 127.5),
        "largest_ours_levels": float((ours - exact).abs().max() * 127.5),
    }


@torch.inference_mode()
def measure(vae: torch.nn.Module, tiling: Tiling, latents: torch.Tensor) -> dict:
    """Decode three times with a tiling; the last time, and the memory it took beyond what was there."""
    tiling.apply(vae)
    is_ours = isinstance(vae.decoder, WindowDecoder)

    def decode() -> None:
        vae.decode(latents)
        if is_ours:
            vae.decoder.free_buffers()

    return {"tile": [tiling.height, tiling.width], **_timed(decode)}


@torch.inference_mode()
def measure_fetched(vae: torch.nn.Module, tiling: Tiling, latents: torch.Tensor) -> dict:
    """The same with each frame brought to the CPU while the GPU goes on."""
    budget = tiling.bytes_to_decode(vae)
    tile = {"tile": [tiling.height, tiling.width]}
    return {**tile, **_timed(lambda: sum(1 for _ in decode_to(iter, latents, vae, budget, False)))}


def _timed(work: Callable[[], object]) -> dict:
    for _ in range(3):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    return {
        "seconds": round(seconds, 3),
        "peak_gib": round((torch.cuda.max_memory_allocated() - before) / GIB, 3),
        "reserved_gib": round((torch.cuda.max_memory_reserved() - before) / GIB, 3),
    }


if __name__ == "__main__":
    main()

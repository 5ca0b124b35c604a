"""The cost of decoding on a CPU: diffusers' decoder against ours, on a quiet or busy machine.

The demo's weights at its size, one window of 5 latent frames, both decoders in turns. `--busy` lets as many
programs as there are cores compete with them, as on a shared machine; `--spin` has OpenMP's threads wait
actively, which is its default and not the app's.

    python benchmarks/vae_cpu.py [--busy] [--spin] [--threads 2] [--size 192] [--rounds 3]
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if "--spin" not in sys.argv:  # before PyTorch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

from diffusers_helper.models.architectures import build_empty, make_vae  # noqa: E402
from diffusers_helper.vae.codec import TILE_LATENTS  # noqa: E402
from diffusers_helper.vae.decoder import WindowDecoder  # noqa: E402
from diffusers_helper.weights.filling import fill  # noqa: E402
from diffusers_helper.weights.model_files import find_models  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--spin", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part = find_models(ROOT / "demo_models").vae
    vae = build_empty(part, partial(make_vae, encodes=False))
    fill(vae, part.checkpoint, torch.device("cpu"), torch.float32)
    decoders = {"diffusers": vae.decoder, "ours": WindowDecoder(vae.decoder)}
    side = options.size // 8
    latents = torch.randn(1, 16, TILE_LATENTS, side, side, generator=torch.Generator().manual_seed(0))
    with busy_cores(os.cpu_count() or 1 if options.busy else 0), torch.inference_mode():
        for _ in range(options.rounds):
            seconds = {name: measure(partial(decoder, latents)) for name, decoder in decoders.items()}
            print(
                json.dumps(seconds | {"ratio": round(seconds["ours"] / seconds["diffusers"], 2)}), flush=True
            )


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Run `count` programs that compute for nothing."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()


def measure(work: partial) -> float:
    begin = time.perf_counter()
    work()
    return round(time.perf_counter() - begin, 2)


if __name__ == "__main__":
    main()

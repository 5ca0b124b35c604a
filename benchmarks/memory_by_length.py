"""Shows that memory does not grow with the length of the video.

Makes videos of 10 and 120 seconds with the tiny models, each in a process of its own, and compares the most
memory that each held. Linux only: the kernel's own figure (VmHWM) is read.

    venv/bin/python benchmarks/memory_by_length.py
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZE = {"width": 96, "height": 64}
LENGTHS = (10, 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="make one video of this length and print its figures")
    seconds = parser.parse_args().seconds
    if seconds is not None:
        print(json.dumps(measure(seconds)))
        return
    command = [sys.executable, __file__, "--seconds"]
    rows = [
        json.loads(subprocess.run([*command, str(length)], check=True, stdout=subprocess.PIPE).stdout)
        for length in LENGTHS
    ]
    for row in rows:
        print(f"{row['seconds']:6.2f} s  {row['frames']:5d} frames  peak {row['peak_mib']:7.1f} MiB")
    print(f"ratio {rows[-1]['peak_mib'] / rows[0]['peak_mib']:.3f}")
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU", **SIZE, "rows": rows}
    path = ROOT / "benchmarks" / "results" / f"{date.today()}-cpu-memory_by_length.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def measure(seconds: float) -> dict[str, float]:
    """Make one video in this process; its frames, and the most memory the process held."""
    import threading

    from demo_models.random_models import build_random_models
    from diffusers_helper.device import choose_compute
    from diffusers_helper.encoding.embedding_cache import EmbeddingCache
    from diffusers_helper.events import Finished
    from diffusers_helper.models.loading import ModelLoader
    from diffusers_helper.pipeline import Target, generate
    from diffusers_helper.request import GenerationRequest
    from diffusers_helper.weights.model_files import find_models

    models = find_models(build_random_models(ROOT / "demo_models" / "random"))
    start = str(ROOT / "examples" / "coffee.png")
    request = GenerationRequest.from_dict(
        {"start_image": start, "seed": 1, "seconds": seconds, "steps": 1, **SIZE}
    )
    with tempfile.TemporaryDirectory() as folder:
        loader = ModelLoader(models, choose_compute("cpu"))
        cache = EmbeddingCache(Path(folder) / "cache")
        *_, last = generate(
            request, Target(Path(folder), "a", save_latents=True), loader, cache, threading.Event()
        )
    assert isinstance(last, Finished)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": last.seconds, "frames": last.frames, "peak_mib": peak / 1024}


if __name__ == "__main__":
    main()

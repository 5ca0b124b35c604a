"""Shows that memory is back where it was after each of many jobs (tiny models; a GPU where there is one).

python benchmarks/jobs_in_a_row.py [--jobs 10] [--vram-gb 1]
"""

import argparse
import json
import platform
import sys
import tempfile
import threading
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.measuring import process_bytes  # noqa: E402
from demo_models.random_models import build_random_models  # noqa: E402
from diffusers_helper.device import choose_compute  # noqa: E402
from diffusers_helper.encoding.embedding_cache import EmbeddingCache  # noqa: E402
from diffusers_helper.events import Finished  # noqa: E402
from diffusers_helper.models.loading import ModelLoader  # noqa: E402
from diffusers_helper.pipeline import Target, generate  # noqa: E402
from diffusers_helper.request import GenerationRequest  # noqa: E402
from diffusers_helper.weights.model_files import find_models  # noqa: E402

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--vram-gb", type=float)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    limit = int(options.vram_gb * 2**30) if options.vram_gb else None
    with tempfile.TemporaryDirectory() as folder:
        models = find_models(build_random_models(Path(folder) / "models"))
        loader = ModelLoader(models, choose_compute("auto", limit))
        rows = [run_job(loader, Path(folder), number) for number in range(options.jobs)]
    for row in rows:
        print(json.dumps(row))
    device = loader.compute.device
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{date.today()}-{machine.replace(' ', '-')}-jobs_in_a_row.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def run_job(loader: ModelLoader, folder: Path, number: int) -> dict[str, float]:
    """One job with encoders not cached; what is held after it."""
    request = GenerationRequest.from_dict(
        {"start_image": str(ROOT / "examples" / "coffee.png"), "seed": number, "steps": 4, "resolution": 128}
    )
    cache = EmbeddingCache(folder / f"cache{number}")
    *_, last = generate(request, Target(folder, "a"), loader, cache, threading.Event())
    assert isinstance(last, Finished)
    on_gpu = loader.compute.device.type == "cuda"
    return {
        "job": number + 1,
        "process_mib": round(process_bytes() / MIB, 1),
        "vram_mib": round(torch.cuda.memory_allocated() / MIB, 3) if on_gpu else 0,
        "vram_held_mib": round(torch.cuda.memory_reserved() / MIB, 1) if on_gpu else 0,
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    main()

"""A whole job on a GPU with little free memory: where its time and its memory go, part by part.

Random weights in the real shapes of all five models (42 GB, written once); 640x608, sections of one second,
every step computed, the videos so far written as for the page. Writes
`benchmarks/results/DATE-GPU-section[-eight-bit][-eager].json`.

    python benchmarks/section.py --weights DIR --cache DIR [--vram-gib 7.5] [--eight-bit] [--eager] ...

Run it twice with the same `--cache`: the first job of the second run is that of any later start of the app.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from benchmarks.gpu import parse_gpu_options  # noqa: E402
from benchmarks.measuring import GIB, ProcessPeak, process_bytes, taken_away  # noqa: E402
from benchmarks.random_weights import write_models  # noqa: E402
from benchmarks.step import make_eight_bit  # noqa: E402
from diffusers_helper.device import choose_compute  # noqa: E402
from diffusers_helper.encoding.embedding_cache import EmbeddingCache  # noqa: E402
from diffusers_helper.events import Finished, SectionDone, StageStarted, StepDone  # noqa: E402
from diffusers_helper.job.partial_video import PartialVideo  # noqa: E402
from diffusers_helper.models.architectures import import_models  # noqa: E402
from diffusers_helper.models.loading import ModelLoader  # noqa: E402
from diffusers_helper.pipeline import Target, generate  # noqa: E402
from diffusers_helper.request import GenerationRequest  # noqa: E402
from diffusers_helper.transformer.compiling import CompiledBlocks, keep_compiled  # noqa: E402
from diffusers_helper.transformer.saved_graphs import SavedGraphs  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="keeps what was compiled")
    parser.add_argument("--vram-gib", default="7.5")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--take-gib", type=float, default=0, help="take so much away in the last job's third step"
    )
    parser.add_argument("--eight-bit", action="store_true", help="weights of 8 bits, made once")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parse_gpu_options(parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    files, compute = write_models(options.weights), choose_compute("cuda")
    if options.eight_bit:
        folder = options.weights.with_name(options.weights.name + "-8bit")
        files = dataclasses.replace(files, transformer=make_eight_bit(files.transformer, folder))
    compute = dataclasses.replace(compute, compiles=compute.compiles and not options.eager)
    compiled = options.cache / "compiled"
    keep_compiled(compiled)
    import_models()
    imported = time.time() - psutil.Process().create_time()
    runner = CompiledBlocks(saved=SavedGraphs(compiled)) if compute.compiles else None
    loader = ModelLoader(files, compute, runner)
    with (
        tempfile.TemporaryDirectory() as folder,
        taken_away(options.vram_gib, loader.compute.device) as taken,
    ):
        noise = np.random.default_rng(0).integers(0, 255, (608, 640, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path(folder) / "start.png")
        request = GenerationRequest.from_dict(
            {
                "start_image": str(Path(folder) / "start.png"),
                "prompt": "A cat.",
                "seed": 1,
                "seconds": options.seconds,
                "steps": options.steps,
                "teacache": False,
            }
        )
        rows = []
        for number in range(options.jobs):
            thief = options.take_gib if number == options.jobs - 1 else 0
            rows.append(run_job(request, loader, Path(folder), number, taken, thief))
            rows[-1]["imported_after_seconds"] = round(imported, 2)
            write(rows, options)
        latents = [load_file(Path(folder) / f"job{n}.safetensors")["latents"] for n in range(options.jobs)]
        rows[-1]["latents_differ_by"] = float((latents[-1] - latents[0]).abs().max())
    write(rows, options)


def write(rows: list[dict], options: argparse.Namespace) -> None:
    """Print the newest job and write all."""
    print(json.dumps(rows[-1]), flush=True)
    gpu = torch.cuda.get_device_name().replace(" ", "-")
    options.out.mkdir(parents=True, exist_ok=True)
    way = "-eight-bit" * options.eight_bit + "-eager" * options.eager
    path = options.out / f"{date.today()}-{gpu}-section{way}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def run_job(
    request: GenerationRequest, loader: ModelLoader, folder: Path, number: int, taken: int, take_gib: float
) -> dict:
    """One job with encoders not cached; seconds of each stage in order, and what memory it took.

    `take_gib` of VRAM are taken away by a foreign tensor after the second step, until the job's end.
    """
    torch.cuda.empty_cache()
    free = round(torch.cuda.mem_get_info()[0] / GIB, 2)
    torch.cuda.reset_peak_memory_stats()
    stages: list[tuple[str, float]] = []
    peaks: dict[str, float] = {}
    target = Target(folder, f"job{number}", save_latents=True, partial_videos=True)  # as from the page
    cache = EmbeddingCache(folder / f"cache{number}")
    begin, name = time.perf_counter(), "start"
    last, thief = None, None
    steps: dict[int, list[float]] = {}
    with ProcessPeak() as process, timed_videos() as videos:
        for last in generate(request, target, loader, cache, threading.Event()):
            if isinstance(last, StepDone) and (last.section, last.step) == (0, 2) and take_gib:
                torch.cuda.empty_cache()
                thief = torch.empty(int(take_gib * GIB), dtype=torch.uint8, device="cuda")
            if isinstance(last, StepDone):
                steps.setdefault(last.section, []).append(round(time.perf_counter() - begin, 3))
            if isinstance(last, StageStarted | SectionDone | Finished):
                torch.cuda.synchronize()
                now = time.perf_counter()
                stages.append((name, round(now - begin, 3)))
                peak = (torch.cuda.max_memory_allocated() - taken) / GIB
                peaks[name] = round(max(peaks.get(name, 0), peak), 2)
                torch.cuda.reset_peak_memory_stats()
                begin = now
                name = last.stage if isinstance(last, StageStarted) else "section done"
        del thief
    assert isinstance(last, Finished)
    return {
        "free_vram_gib": free,
        "taken_away_gib": take_gib,
        "frames": last.frames,
        "seconds": round(last.elapsed, 2),
        "stages": stages,
        "videos_so_far": videos,
        "seconds_per_step": {n: round((s[-1] - s[0]) / (len(s) - 1), 3) for n, s in steps.items()},
        "process_peak_gib": round(process.peak_bytes() / GIB, 3),
        "vram_peak_gib": peaks,
        "process_gib_after": round(process_bytes() / GIB, 3),
        "vram_gib_after": round((torch.cuda.memory_allocated() - taken) / GIB, 4),
        "threads_after": threading.active_count(),
    }


@contextlib.contextmanager
def timed_videos() -> Iterator[list[float]]:
    """Within the block, notes how many seconds it takes to write each video so far."""
    write, seconds = PartialVideo.write, list[float]()

    def timed(video: PartialVideo) -> Path | None:
        begin = time.perf_counter()
        path = write(video)
        seconds.append(round(time.perf_counter() - begin, 3))
        return path

    with mock.patch.object(PartialVideo, "write", timed):
        yield seconds


if __name__ == "__main__":
    main()

"""Seconds a denoising step, resident against streamed, on a GPU with little free memory.

Writes random weights in the transformer's real shapes as sharded safetensors files (25.7 GB, once), takes
the GPU's memory away with one dummy tensor until `--vram-gib` are free, and measures each way in the same
run. Prints a table and writes `benchmarks/results/DATE-GPU-step.json`.

    python benchmarks/step.py --weights DIR [--vram-gib 7.5 5.5 24 all] [--cold] [--ram-gib 16]
        [--eight-bit] [--no-peers]
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu import parse_gpu_options  # noqa: E402
from benchmarks.group_offloading import measure_group_offloading  # noqa: E402
from benchmarks.measuring import GIB, ProcessPeak, taken_away  # noqa: E402
from benchmarks.random_weights import write_transformer  # noqa: E402
from diffusers_helper.device import Compute, choose_compute  # noqa: E402
from diffusers_helper.eight_bit.conversion import convert  # noqa: E402
from diffusers_helper.encoding.prompts import PromptEmbeds  # noqa: E402
from diffusers_helper.models.streamed import stream_transformer  # noqa: E402
from diffusers_helper.models.vram_budget import count_tokens  # noqa: E402
from diffusers_helper.ram import read_ram  # noqa: E402
from diffusers_helper.sampling.denoiser import SectionDenoiser, SectionInputs  # noqa: E402
from diffusers_helper.sampling.schedule import flow_shift_mu, flow_sigmas  # noqa: E402
from diffusers_helper.sections import section_positions  # noqa: E402
from diffusers_helper.streaming import ram_tier  # noqa: E402
from diffusers_helper.transformer.compiling import CompiledBlocks, EagerBlocks  # noqa: E402
from diffusers_helper.weights.checkpoint import Checkpoint  # noqa: E402
from diffusers_helper.weights.model_files import ModelPart  # noqa: E402

LATENT_FRAMES = 9
SYSTEM_GIB = 3
"""GiB that the system of a small machine takes of its RAM."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--vram-gib", nargs="+", default=["7.5"])
    parser.add_argument("--only-ram", action="store_true", help="leave out the streamed ways with all RAM")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=608)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="leave out diffusers' group offloading")
    parser.add_argument("--cold", action="store_true", help="also with the files not cached (as root)")
    parser.add_argument(
        "--ram-gib", nargs="*", default=[], help="also as if the machine had so little RAM (root)"
    )
    parser.add_argument("--eight-bit", action="store_true", help="also with weights of 8 bits, made once")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parse_gpu_options(parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    part = write_transformer(options.weights)
    compute = choose_compute("cuda")
    inputs, noise, sigmas = make_inputs(options.height, options.width, options.steps)
    rows, reference = [], None
    runners = {False: EagerBlocks(), True: CompiledBlocks()}
    first, *others = options.vram_gib
    ways = [("resident", "all"), ("resident, compiled", "all")]
    if not options.only_ram:
        ways += [("streamed", first), ("streamed, compiled", first)]
        ways += [(f"streamed, {vram} GiB free", vram) for vram in others]
    if options.cold:
        ways.append(("streamed, files cold", options.vram_gib[0]))
    ways += [(f"streamed, {gib} GiB RAM", options.vram_gib[0]) for gib in options.ram_gib]
    parts = {False: part}
    if options.eight_bit:
        parts[True] = make_eight_bit(part, options.weights.with_name(options.weights.name + "-8bit"))
        ways += [("8 bit, resident, compiled", "all"), ("8 bit, streamed", first)]
        ways += [("8 bit, streamed, compiled", first)]
    for way, vram in ways:
        with files_in_cache(way):
            row, result = measure(
                way,
                vram,
                parts["8 bit" in way],
                compute if "compiled" in way else dataclasses.replace(compute, compiles=False),
                (inputs, noise, sigmas),
                runners["compiled" in way],
            )
        reference = result if reference is None else reference
        row["relative_error"] = float((result - reference).norm() / reference.norm())
        row |= {"width": options.width, "height": options.height}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if not options.no_peers:
        row, result = measure_group_offloading(part, compute, inputs, noise, sigmas, options.vram_gib[0])
        row["relative_error"] = float((result - reference).norm() / reference.norm())
        rows.append(row | {"width": options.width, "height": options.height})
        print(json.dumps(rows[-1]), flush=True)
    show(rows)
    gpu = torch.cuda.get_device_name().replace(" ", "-")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{date.today()}-{gpu}-step.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def make_eight_bit(part: ModelPart, folder: Path) -> ModelPart:
    """The same weights in 8 bits; says how long making them took."""
    begin = time.perf_counter()
    for _progress in convert(part, folder, torch.device("cuda")):
        pass
    print(f"weights of 8 bits made in {time.perf_counter() - begin:.0f} s", flush=True)
    return ModelPart(part.config, Checkpoint.open(folder), None, is_eight_bit=True)


def make_inputs(height: int, width: int, steps: int) -> tuple[SectionInputs, torch.Tensor, torch.Tensor]:
    """A section's inputs in the real shapes, random but for their seed."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    h, w = height // 8, width // 8
    prompt = PromptEmbeds(randn(1, 512, 4096), torch.arange(512)[None] < 120, randn(1, 768))
    positions = section_positions(9, LATENT_FRAMES)
    history = randn(1, 16, 20, h, w)
    inputs = SectionInputs(
        prompt,
        None,
        randn(1, 729, 1152),
        history[:, :, :2],
        history[:, :, 2:4],
        history[:, :, 4:20],
        positions,
    )
    noise = randn(1, 16, LATENT_FRAMES, h, w)
    return inputs, noise, flow_sigmas(steps, flow_shift_mu(tuple(noise.shape)))


def measure(
    way: str,
    vram: str,
    part: ModelPart,
    compute: Compute,
    section: tuple[SectionInputs, torch.Tensor, torch.Tensor],
    runner: CompiledBlocks,
) -> tuple[dict, torch.Tensor]:
    """Run the steps one way; what it took, and the last prediction."""
    inputs, noise, sigmas = section
    tokens = count_tokens(*noise.shape[-3:])
    with taken_away(vram, compute.device) as dummy_bytes, ProcessPeak() as process:
        free = torch.cuda.mem_get_info()[0] / GIB
        torch.cuda.reset_peak_memory_stats()
        with stream_transformer(part, compute, tokens, None, runner) as transformer:
            begin = time.perf_counter()
            if not transformer.is_prepared:
                transformer.prepare_blocks(tokens, compute)
            torch.cuda.synchronize()
            compiled = time.perf_counter() - begin
            begin = time.perf_counter()
            denoiser = SectionDenoiser(transformer, inputs, compute, sigmas[:-1])
            torch.cuda.synchronize()
            prepared = time.perf_counter() - begin
            x, seconds = noise.to(compute.device), []
            with transformer.streaming():
                num_slots = transformer.stack.layers.num_slots
                for sigma in sigmas[:-1]:
                    begin = time.perf_counter()
                    result = denoiser.predict(x, sigma)
                    torch.cuda.synchronize()
                    seconds.append(round(time.perf_counter() - begin, 4))
            row = {
                "name": way,
                "gpu": torch.cuda.get_device_name(),
                "free_vram_gib": round(free, 2),
                "resident_layers": transformer.stack.layers.num_resident,
                "ring_slots": num_slots,
                "compiling_seconds": round(compiled, 1),
                "modulation_seconds": round(prepared, 3),
                "seconds_per_step": seconds,
                "vram_peak_gib": round((torch.cuda.max_memory_allocated() - dummy_bytes) / GIB, 3),
                "vram_reserved_peak_gib": round((torch.cuda.max_memory_reserved() - dummy_bytes) / GIB, 3),
                "process_peak_gib": round(process.peak_bytes() / GIB, 3),
            }
            return row, result.cpu()


@contextlib.contextmanager
def files_in_cache(way: str) -> Iterator[None]:
    """Prepare the file cache as the name of the way says: as it is, empty, or in a machine of little RAM."""
    if "cold" not in way and "RAM" not in way:
        yield
        return
    Path("/proc/sys/vm/drop_caches").write_text("3")
    if "RAM" not in way:
        yield
        return
    gib = int(way.split()[1])
    huge_pages = Path("/proc/sys/vm/nr_hugepages")  # taken from everything else, at once
    huge_pages.write_text(str((read_ram().available - (gib - SYSTEM_GIB) * GIB) // 2**21))
    original = ram_tier.read_ram
    ram_tier.read_ram = lambda: dataclasses.replace(original(), total=gib * GIB)
    try:
        yield
    finally:
        ram_tier.read_ram = original
        huge_pages.write_text("0")


def show(rows: list[dict]) -> None:
    print(f"{'way':<22}{'free':>7}{'layers':>8}{'s/step':>9}{'VRAM':>8}{'process':>9}{'error':>10}")
    for row in rows:
        steps = sorted(row["seconds_per_step"][1:])
        median = steps[len(steps) // 2]
        print(
            f"{row['name']:<22}{row['free_vram_gib']:>7.1f}{row.get('resident_layers', 0):>8}{median:>9.3f}"
            f"{row['vram_peak_gib']:>8.2f}{row['process_peak_gib']:>9.2f}{row['relative_error']:>10.2g}"
        )


if __name__ == "__main__":
    main()

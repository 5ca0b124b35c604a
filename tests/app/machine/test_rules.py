"""The check's lines about computers as they are at home."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.limits import GIB
from diffusers_helper.public import OutdatedWeights
from diffusers_helper.ram import SystemMemory
from scripts.torch_build import Gpu
from tests.support.error_values import WORDS, placeholders
from webui.eichi_utils.machine.check import line_text
from webui.eichi_utils.machine.disk import FolderFacts, ModelsFacts
from webui.eichi_utils.machine.rules import MachineFacts, check_machine
from webui.eichi_utils.machine.torch_probe import TorchFacts
from webui.eichi_utils.text.translations import Translator


def gpu(name: str, capability: tuple[int, int] | None, gib: float, free: float, driver=(581, 15)) -> Gpu:
    return Gpu(f"NVIDIA GeForce {name}", driver, capability, int(gib * GIB), int(free * GIB))


def ram(total: float, available: float, page_file: float | None = 8, committable: float | None = None):
    """Windows' memory in GiB; committable is what is free with the page file, unless given."""
    if committable is None:
        committable = available + (page_file or 0)
    size = None if page_file is None else int(page_file * GIB)
    return SystemMemory(int(total * GIB), int(available * GIB), int(committable * GIB), size)


def folder(gib: float | None, **values) -> FolderFacts:
    return FolderFacts(Path("outputs"), None if gib is None else int(gib * GIB), **values)


MODELS = FolderFacts(Path("models"), 100 * GIB)
COMPLETE = ModelsFacts("complete", MODELS, num_bytes=40 * GIB, bytes_per_second=3e9)
SATA, SLOW_DISK, UNKNOWN_DISK = (replace(COMPLETE, bytes_per_second=speed) for speed in (0.55e9, 1e8, None))
MISSING = ModelsFacts("missing", MODELS, InputError("model_missing", repository="a/b", path="models"))
CUT_SHORT = InputError("model_file_cut_short", path="models/a.safetensors", size=5, expected=9)
PARTLY = ModelsFacts("partly", MODELS, CUT_SHORT, num_bytes=30 * GIB)
MISSING_20, PARTLY_15 = replace(MISSING, folder=folder(20)), replace(PARTLY, folder=folder(15))
DEMO = ModelsFacts("demo", MODELS)
RAM_16 = ram(15.7, 10)
GTX_1080 = gpu("GTX 1080", (6, 1), 8, 7.5)
RTX_3060 = gpu("RTX 3060", (8, 6), 12, 11.1)
RTX_4060 = gpu("RTX 4060", (8, 9), 8, 7.1)
RTX_4090 = gpu("RTX 4090", (8, 9), 24, 23.5)
RTX_5070 = gpu("RTX 5070", (12, 0), 12, 11)
TITAN_V = gpu("TITAN V", (7, 0), 12, 11)
CUDA_126, CUDA_128, CUDA_130, CUDA_150 = (
    TorchFacts(version, cuda, "3.8.0.post29")
    for version, cuda in (
        ("2.12.0+cu126", (12, 6)),
        ("2.11.0+cu128", (12, 8)),
        ("2.12.0+cu130", (13, 0)),
        ("3.0", (15, 0)),
    )
)
NO_TRITON = replace(CUDA_128, triton=None)
FOR_CPU, NO_TORCH = TorchFacts("2.13.0+cpu"), TorchFacts(None)
OUTDATED = tuple(OutdatedWeights(Path(root), 17 * 10**9) for root in ("models", "cache"))
GOOD_PC = MachineFacts(
    python=(3, 12),
    python_bits=64,
    on_windows=True,
    gpu=RTX_4060,
    torch=CUDA_128,
    memory=ram(31.7, 25),
    models=COMPLETE,
    output=folder(200),
)


def pc(**changes) -> MachineFacts:
    """The good computer with something else in it."""
    return replace(GOOD_PC, **changes)


def driver(*version: int) -> Gpu:
    return replace(RTX_3060, driver=version)


def probed(used: Gpu | None, present: Gpu = RTX_4060, **values) -> MachineFacts:
    """The good computer after PyTorch was probed, which computes on this GPU, or on none of the present."""
    torch = replace(CUDA_128, **{"gpu": used, "attention": "flash"} | values)
    return pc(gpu=used or present, torch=torch)


UNSUPPORTED = MachineError("card_not_supported", card="RTX 5070", torch="2.6.0")
NO_KERNELS = {"error": UNSUPPORTED, "lacks_kernels": True}
GPU_FULL = MachineError("out_of_memory")
TOO_OLD = MachineError("card_too_old", card="GTX 1080")
COMPUTERS: dict[str, tuple[MachineFacts, str]] = {
    "all is good": (GOOD_PC, "-attention"),
    "RTX 2060 6 GB": (pc(gpu=gpu("RTX 2060", (7, 5), 6, 5.2)), "card_float16.slow"),
    "RTX 3060 12 GB": (pc(gpu=RTX_3060), "card.good"),
    "RTX 5070": (pc(gpu=RTX_5070), ""),
    "RTX 5070, CUDA 12.6": (pc(gpu=RTX_5070, torch=CUDA_126), "torch_no_kernels.fails"),
    "RTX 5070, CUDA 12.6 made for it": (probed(RTX_5070, cuda=(12, 6)), ""),
    "RTX 5070, PyTorch made for others": (probed(RTX_5070, **NO_KERNELS), "torch_no_kernels.fails"),
    "RTX 5070, computing nothing": (probed(RTX_5070, error=UNSUPPORTED), "torch_refuses.fails"),
    "GTX 1080": (pc(gpu=GTX_1080), "card_old.fails"),
    "GTX 1080, PyTorch probed": (probed(GTX_1080, error=TOO_OLD), "card_old.fails"),
    "Titan V, CUDA 12.8": (pc(gpu=TITAN_V), "card_float16.slow torch_no_kernels.fails"),
    "Titan V, CUDA 12.6": (pc(gpu=TITAN_V, torch=CUDA_126), "card_float16.slow"),
    "unknown GPU": (pc(gpu=gpu("XYZ", None, 8, 7)), "card_unknown.slow"),
    "driver of 2021": (pc(gpu=driver(472, 12)), "driver.fails"),
    "driver of 2021, probed": (probed(None, driver(472, 12), no_gpu_reason="too old"), "driver.fails"),
    "driver of early 2025, CUDA 13": (pc(gpu=driver(572, 83), torch=CUDA_130), "driver.fails"),
    "driver of CUDA 12.2, CUDA 12.8": (pc(gpu=driver(536, 67)), "driver.good"),
    "driver 528, Windows": (pc(gpu=driver(528, 2)), "driver.fails"),
    "driver 528, Linux": (pc(gpu=driver(528, 2), on_windows=False), "driver.good"),
    "a CUDA of the future": (pc(torch=CUDA_150), "-driver"),
    "PyTorch for the CPU": (pc(torch=FOR_CPU), "torch_cpu_only.fails"),
    "PyTorch for the CPU, no GPU": (pc(gpu=None, torch=FOR_CPU), "no_card.slow"),
    "no PyTorch": (pc(torch=NO_TORCH), "torch_missing.fails"),
    "PyTorch unknown": (pc(torch=None), "-torch"),
    "PyTorch broken": (probed(None, failure="ImportError: c10"), "torch_broken.fails"),
    "PyTorch lacks a DLL": (probed(None, failure="OSError: [WinError 126] c10.dll"), "torch_dll.fails"),
    "PyTorch's DLL does not start": (probed(None, failure="[WinError 1114] c10.dll"), "torch_dll.fails"),
    "PyTorch sees no GPU": (probed(None, no_gpu_reason="RuntimeError: No GPUs"), "torch_blind.fails"),
    "PyTorch finds the GPU full": (probed(RTX_4060, error=GPU_FULL), "torch_refuses.fails"),
    "no GPU": (pc(gpu=None), "no_card.slow -vram"),
    "no GPU, no models": (
        pc(gpu=None, models=MISSING_20),
        "no_card.slow models_missing_without_card.slow -models_disk",
    ),
    "no GPU, --device cuda": (pc(gpu=None, device="cuda"), "no_card.fails"),
    "GPU without a driver": (
        pc(gpu=None, gpu_without_driver=True, models=MISSING),
        "card_without_driver.fails models_missing.fails",
    ),
    "--device cpu": (pc(device="cpu", gpu=None, torch=FOR_CPU), "card_unused.slow"),
    "VRAM taken by a game": (pc(gpu=gpu("RTX 4060", (8, 9), 8, 3)), "vram_taken.fails"),
    "VRAM taken by a browser": (pc(gpu=gpu("RTX 4060", (8, 9), 8, 4.8)), "vram_taken.slow"),
    "RTX 3050 4 GB": (pc(gpu=gpu("RTX 3050", (8, 6), 4, 3.5)), "vram_small.fails"),
    "a GPU of nearly 5 GB": (pc(gpu=gpu("RTX A2000", (8, 6), 4.9, 4.7)), "vram_small.slow"),
    "VRAM unknown": (pc(gpu=replace(RTX_4060, memory=None, free=None)), "-vram"),
    "--vram-gb 4": (pc(memory_limit=4 * GIB), "vram_limit.fails"),
    "--vram-gb 4.8": (pc(memory_limit=int(4.8 * GIB)), "vram_limit.slow"),
    "--vram-gb 6": (pc(memory_limit=6 * GIB), ""),
    "8 GB of RAM": (pc(memory=ram(7.8, 4.2)), "ram_small.slow"),
    "16 GB of RAM, fast disk": (pc(memory=RAM_16), "ram_and_disk.good"),
    "16 GB of RAM, SATA SSD": (pc(memory=RAM_16, models=SATA), "ram_and_disk.slow"),
    "16 GB of RAM, unknown disk": (pc(memory=RAM_16, models=UNKNOWN_DISK), ""),
    "16 GB of RAM, most of it taken": (pc(memory=ram(15.7, 2.5)), "ram_taken.slow"),
    "16 GB of RAM, nothing left": (pc(memory=ram(15.7, 1, page_file=None)), "ram_short.fails"),
    "24 GB of RAM": (pc(memory=ram(23.7, 15)), "ram_and_disk.good"),
    "24 GB of RAM, 8-bit weights": (pc(memory=ram(23.7, 15), eight_bit=True), "ram.good"),
    "8-bit weights of an earlier version": (pc(outdated=OUTDATED), "eight_bit_outdated.slow"),
    "64 GB of RAM, slow disk": (pc(memory=ram(63.7, 50), models=SLOW_DISK), ""),
    "RTX 4090, slow disk": (pc(gpu=RTX_4090, memory=RAM_16, models=SLOW_DISK), "ram.good"),
    "RTX 4090 with a limit": (pc(gpu=RTX_4090, memory=RAM_16, memory_limit=8 * GIB), "ram_and_disk.good"),
    "RAM unknown": (pc(memory=None), "ram_unknown.slow"),
    "page file off, 16 GB": (pc(memory=ram(15.7, 10, page_file=0)), "page_file_off.fails"),
    "page file off, 64 GB": (pc(memory=ram(63.7, 50, page_file=0)), "page_file_off.good"),
    "page file nearly full": (pc(memory=ram(15.7, 10, page_file=4, committable=3)), "page_file.slow"),
    "Linux": (pc(on_windows=False, memory=ram(31, 25, page_file=None)), "-page_file"),
    "disk full": (pc(output=folder(0.1)), "output.fails"),
    "disk nearly full": (pc(output=folder(2)), "output.slow"),
    "output folder not writable": (pc(output=folder(50, writable=False)), "output_not_writable.fails"),
    "free space unknown": (pc(output=folder(None)), "output_unknown.slow"),
    "models missing": (pc(models=MISSING), "models_missing.fails models_disk.good"),
    "models missing, disk full": (pc(models=MISSING_20), "models_missing.fails models_disk.fails"),
    "models in OneDrive": (
        pc(models=replace(COMPLETE, folder=folder(200, in_onedrive=True))),
        "models_onedrive.slow models.good",
    ),
    "models cut short": (pc(models=PARTLY), "models_partly.fails"),
    "models cut short, just enough space": (pc(models=PARTLY_15), "models_partly.fails models_disk.good"),
    "demo models": (pc(models=DEMO), "models_demo.slow"),
    "--demo": (pc(models=DEMO, demo=True, memory=RAM_16), "models_demo.good ram.good -vram"),
    "--demo, no GPU": (pc(gpu=None, models=DEMO, demo=True), "demo_without_card.good models_demo.good"),
    "--demo --device cpu": (pc(device="cpu", gpu=None, models=DEMO, demo=True), "demo_without_card.good"),
    "--demo --device cuda, no GPU": (pc(gpu=None, models=DEMO, demo=True, device="cuda"), "no_card.fails"),
    "Triton": (GOOD_PC, "triton.good"),
    "no Triton": (pc(torch=NO_TRITON), "triton_missing.slow"),
    "no Triton, RTX 2060": (
        pc(gpu=gpu("RTX 2060", (7, 5), 6, 5.2), torch=NO_TRITON),
        "card_float16.slow -triton",
    ),
    "no Triton, no GPU": (pc(gpu=None, torch=NO_TRITON), "no_card.slow -triton"),
    "compiling failed": (pc(compiler_failure="no C runtime"), "triton_failed.slow"),
    "compiling failed once, no Triton now": (
        pc(torch=NO_TRITON, compiler_failure="no C runtime"),
        "triton_missing.slow",
    ),
    "kernels of an RTX 4060": (
        probed(RTX_4060, attention="cudnn", product="triton", int8_attention=True),
        "attention_cudnn.good eight_bit_triton.good int8_attention.good",
    ),
    "kernels without Triton": (
        probed(RTX_4060, attention="efficient", product="pytorch", int8_attention=False),
        "attention_efficient.good eight_bit_pytorch.good -int8_attention",
    ),
    "kernels of an older GPU": (
        probed(RTX_4060, attention="xformers", product="dequantized"),
        "attention_xformers.good eight_bit_dequantized.good -int8_attention",
    ),
    "flash": (probed(RTX_4060), "attention_flash.good -eight_bit"),
    "no kernel of attention": (probed(RTX_4060, attention="math"), "attention_math.slow"),
    "Python 3.9": (pc(python=(3, 9)), "python_old.fails"),
    "Python 3.14": (pc(python=(3, 14)), "python.good"),
    "Python 3.15": (pc(python=(3, 15)), "python_new.slow"),
    "Python of 32 bits": (pc(python_bits=32), "python_32_bit.fails"),
    "nothing known": (MachineFacts((3, 12), 64, on_windows=False), "no_card.slow ram_unknown.slow"),
}
"""By name, the facts and the lines that are not good, in order; of those that are good only some, at the end,
with a minus before one that is absent."""


def lines_of(facts: MachineFacts) -> list[str]:
    return [f"{line.code}.{line.level}" for line in check_machine(facts)]


@pytest.mark.parametrize("name", COMPUTERS)
def test_what_is_not_good_has_a_line(name):
    """A fact that is unknown or irrelevant has none."""
    facts, expected = COMPUTERS[name]
    lines, named = lines_of(facts), expected.split()
    absent = tuple(line.removeprefix("-") for line in named if line.startswith("-"))
    not_good = [line for line in named if line.endswith((".slow", ".fails"))]
    assert [line for line in lines if not line.endswith(".good")] == not_good
    assert {line for line in named if line.endswith(".good")} <= set(lines)
    assert not [line for line in lines if line.startswith(absent)]


def test_8_bit_weights_stream_half_as_much():
    lines = {line.code: line for line in check_machine(pc(memory=ram(15.7, 8), eight_bit=True))}
    assert lines["ram_and_disk"].values["streamed"] == "8"


def test_all_that_an_earlier_version_left_has_one_line():
    lines = {line.code: line for line in check_machine(pc(outdated=OUTDATED))}
    assert lines["eight_bit_outdated"].values == {"path": "models, cache", "size": "34.0"}


def test_drivers_are_named_as_nvidia_names_them():
    """580 is a branch; on Linux a version has three parts."""
    lines = {line.code: line for line in check_machine(pc(gpu=driver(579, 65, 6), torch=CUDA_130))}
    assert lines["driver"].values == {"driver": "579.65.6", "cuda": "13.0", "needed": "580"}


@pytest.mark.parametrize("name", COMPUTERS)
def test_every_line_has_a_sentence_and_at_most_one_thing_to_do(name):
    for line in check_machine(COMPUTERS[name][0]):
        text, advice = line_text(line, Translator("en"))
        assert (advice is None) is (line.level == "good")
        assert not re.search(r"[{}]|None", text + (advice or ""))
        key = f"check.{line.code}.{line.level}"
        assert placeholders(WORDS[key] + WORDS.get(f"{key}.do", "")) == set(line.values), key


def test_every_sentence_belongs_to_the_line_of_a_computer():
    tested = {f"check.{line}" for facts, _ in COMPUTERS.values() for line in lines_of(facts)}
    written = {key.removesuffix(".do") for key in WORDS if key.startswith("check.")}
    assert tested == {key for key in written if not key.startswith(("check.mark.", "check.result."))}

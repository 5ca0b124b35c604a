"""Computers as they are at home, as facts, and what is not good of each. Used by the tests of the check."""

from dataclasses import replace
from pathlib import Path

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.ram import SystemMemory
from webui.eichi_utils.machine.facts import (
    CardFacts,
    FolderFacts,
    MachineFacts,
    ModelsFacts,
    TorchAnswer,
    TorchFacts,
)

GIB = 2**30
MODELS = FolderFacts(Path("models"), 100 * GIB)
MODEL_FILE = Path("models", "a.safetensors")
COMPLETE = ModelsFacts("complete", MODELS, num_bytes=40 * GIB, bytes_per_second=3e9)
MISSING = ModelsFacts("missing", MODELS, InputError("model_missing", repository="a/b", path="models"))
CUT_SHORT = InputError("model_file_cut_short", path=str(MODEL_FILE), size=5, expected=9)
BUILT_FOR = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


def card(name: str, capability: tuple[int, int] | None, gib: float, free: float, driver=(581, 15)):
    return CardFacts(f"NVIDIA GeForce {name}", capability, int(gib * GIB), int(free * GIB), driver)


def ram(total: float, available: float, page_file: float | None = 8, committable: float | None = None):
    """Windows' memory in GiB; committable is what is free with the page file, unless given."""
    if committable is None:
        committable = available + (page_file or 0)
    size = None if page_file is None else int(page_file * GIB)
    return SystemMemory(int(total * GIB), int(available * GIB), int(committable * GIB), size)


def folder(gib: float | None, **values) -> FolderFacts:
    return FolderFacts(Path("outputs"), None if gib is None else int(gib * GIB), **values)


RTX_2060 = card("RTX 2060", (7, 5), 6, 5.2)
RTX_3060 = card("RTX 3060", (8, 6), 12, 11.1)
RTX_4060 = card("RTX 4060", (8, 9), 8, 7.1)
RTX_5070 = card("RTX 5070", (12, 0), 12, 11)
TORCH = TorchFacts("2.11.0+cu128", (12, 8))
GOOD_PC = MachineFacts(
    python=(3, 12),
    python_bits=64,
    on_windows=True,
    card=RTX_4060,
    torch=TORCH,
    memory=ram(31.7, 25),
    models=COMPLETE,
    output=folder(200),
)
NO_CARD = replace(GOOD_PC, card=None)


def pc(**changes) -> MachineFacts:
    """The good computer with something else in it."""
    return replace(GOOD_PC, **changes)


def asked(taken: CardFacts | None, there: CardFacts = RTX_4060, **values) -> MachineFacts:
    """The good computer after PyTorch was asked, which takes this card or none of what is there."""
    answer = TorchAnswer(**{"card": taken, "kernels": BUILT_FOR, "attention": "flash"} | values)
    return pc(card=taken or there, torch=replace(TORCH, answer=answer))


COMPUTERS: dict[str, tuple[MachineFacts, list[str]]] = {
    "all is good": (GOOD_PC, []),
    "RTX 2060 6 GB": (pc(card=RTX_2060), ["card_float16.slow"]),
    "RTX 3060 12 GB": (pc(card=RTX_3060), []),
    "RTX 5070": (pc(card=RTX_5070), []),
    "RTX 5070, torch for CUDA 12.6": (
        pc(card=RTX_5070, torch=TorchFacts("2.10.0+cu126", (12, 6))),
        ["torch_no_kernels.fails"],
    ),
    "RTX 5070, torch says it has no sm_120": (
        asked(
            RTX_5070,
            kernels=("sm_80", "sm_90"),
            error=MachineError("card_not_supported", card="RTX 5070", torch="2.6.0"),
        ),
        ["torch_no_kernels.fails"],
    ),
    "GTX 1080": (pc(card=card("GTX 1080", (6, 1), 8, 7.5)), ["card_old.fails"]),
    "Titan V, torch for CUDA 12.8": (
        pc(card=card("TITAN V", (7, 0), 12, 11), torch=TORCH),
        ["card_float16.slow", "torch_no_kernels.fails"],
    ),
    "Titan V, torch for CUDA 12.6": (
        pc(card=card("TITAN V", (7, 0), 12, 11), torch=TorchFacts("2.12.0+cu126", (12, 6))),
        ["card_float16.slow"],
    ),
    "an unknown card": (pc(card=card("XYZ", None, 8, 7)), ["card_unknown.slow"]),
    "driver of 2021": (
        pc(card=replace(RTX_3060, driver=(472, 12))),
        ["driver.fails"],
    ),
    "driver of 2021, torch was asked": (
        asked(None, replace(RTX_3060, driver=(472, 12)), blindness="driver too old"),
        ["driver.fails"],
    ),
    "driver of early 2025 for CUDA 13": (
        pc(card=replace(RTX_3060, driver=(572, 83)), torch=TorchFacts("2.12.0+cu130", (13, 0))),
        ["driver.fails"],
    ),
    "driver of CUDA 12.2 for CUDA 12.8": (pc(card=replace(RTX_3060, driver=(536, 67))), []),
    "a CUDA of the future": (pc(torch=TorchFacts("3.0", (15, 0))), []),
    "torch for the CPU": (pc(torch=TorchFacts("2.13.0+cpu")), ["torch_cpu_only.fails"]),
    "torch for the CPU, no card": (
        replace(NO_CARD, torch=TorchFacts("2.13.0+cpu")),
        ["no_card.slow"],
    ),
    "no torch": (pc(torch=TorchFacts(None)), ["torch_missing.fails"]),
    "torch cannot be found": (pc(torch=None), []),
    "torch is broken": (asked(None, failure="ImportError: c10"), ["torch_broken.fails"]),
    "torch lacks a DLL": (
        asked(None, failure="OSError: [WinError 126] Error loading c10.dll"),
        ["torch_dll.fails"],
    ),
    "torch sees no card": (asked(None, blindness="RuntimeError: No GPUs"), ["torch_blind.fails"]),
    "torch finds the card full": (
        asked(RTX_4060, error=MachineError("out_of_memory")),
        ["torch_refuses.fails"],
    ),
    "no card": (NO_CARD, ["no_card.slow"]),
    "no card and no models": (
        replace(NO_CARD, models=replace(MISSING, folder=replace(MODELS, free=GIB))),
        ["no_card.slow", "models_missing_without_card.slow"],
    ),
    "no card, but CUDA asked for": (replace(NO_CARD, device="cuda"), ["no_card.fails"]),
    "a card without a driver": (
        replace(NO_CARD, card_without_driver=True, models=MISSING),
        ["card_without_driver.fails", "models_missing.fails"],
    ),
    "the CPU asked for": (pc(device="cpu", torch=TorchFacts("2.13.0+cpu")), ["card_unused.slow"]),
    "VRAM taken by a game": (pc(card=card("RTX 4060", (8, 9), 8, 3)), ["vram_taken.fails"]),
    "VRAM taken by a browser": (pc(card=card("RTX 4060", (8, 9), 8, 4.8)), ["vram_taken.slow"]),
    "RTX 3050 4 GB": (pc(card=card("RTX 3050", (8, 6), 4, 3.5)), ["vram_small.fails"]),
    "a card of nearly 5 GB": (pc(card=card("RTX A2000", (8, 6), 4.9, 4.7)), ["vram_small.slow"]),
    "VRAM that is not told": (pc(card=replace(RTX_4060, memory=None, free=None)), []),
    "a limit of 4 GB": (pc(memory_limit=4 * GIB), ["vram_limit.fails"]),
    "a limit of 4.8 GB": (pc(memory_limit=int(4.8 * GIB)), ["vram_limit.slow"]),
    "a limit of 6 GB": (pc(memory_limit=6 * GIB), []),
    "8 GB of RAM": (pc(memory=ram(7.8, 4.2)), ["ram_small.slow"]),
    "16 GB of RAM, fast disk": (pc(memory=ram(15.7, 10)), []),
    "16 GB of RAM, SATA SSD": (
        pc(memory=ram(15.7, 10), models=replace(COMPLETE, bytes_per_second=0.55e9)),
        ["ram_and_disk.slow"],
    ),
    "16 GB of RAM, disk not tried": (
        pc(memory=ram(15.7, 10), models=replace(COMPLETE, bytes_per_second=None)),
        [],
    ),
    "16 GB of RAM, most of it taken": (pc(memory=ram(15.7, 2.5)), ["ram_taken.slow"]),
    "16 GB of RAM, nothing left": (
        pc(memory=ram(15.7, 1, page_file=None)),
        ["ram_short.fails"],
    ),
    "64 GB of RAM, slow disk": (
        pc(memory=ram(63.7, 50), models=replace(COMPLETE, bytes_per_second=1e8)),
        [],
    ),
    "24 GB of VRAM, 16 GB of RAM, slow disk": (
        pc(
            card=card("RTX 4090", (8, 9), 24, 23.5),
            memory=ram(15.7, 10),
            models=replace(COMPLETE, bytes_per_second=1e8),
        ),
        [],
    ),
    "RAM that is not told": (pc(memory=None), ["ram_unknown.slow"]),
    "page file off, 16 GB": (pc(memory=ram(15.7, 10, page_file=0)), ["page_file_off.fails"]),
    "page file off, 64 GB": (pc(memory=ram(63.7, 50, page_file=0)), []),
    "page file on and nearly full": (
        pc(memory=ram(15.7, 10, page_file=4, committable=3)),
        ["page_file.slow"],
    ),
    "Linux": (pc(on_windows=False, memory=ram(31, 25, page_file=None)), []),
    "disk full": (pc(output=folder(0.1)), ["output.fails"]),
    "disk nearly full": (pc(output=folder(2)), ["output.slow"]),
    "output folder of another user": (pc(output=folder(50, writable=False)), ["output_not_writable.fails"]),
    "a disk that does not tell": (pc(output=folder(None)), ["output_unknown.slow"]),
    "models missing": (pc(models=MISSING), ["models_missing.fails"]),
    "models missing, no room for them": (
        pc(models=replace(MISSING, folder=replace(MODELS, free=20 * GIB))),
        ["models_missing.fails", "models_disk.fails"],
    ),
    "models cut short": (
        pc(models=ModelsFacts("partly", MODELS, CUT_SHORT, num_bytes=30 * GIB)),
        ["models_partly.fails"],
    ),
    "models cut short, room for the rest": (
        pc(models=ModelsFacts("partly", replace(MODELS, free=15 * GIB), CUT_SHORT, num_bytes=30 * GIB)),
        ["models_partly.fails"],
    ),
    "demo models": (pc(models=ModelsFacts("demo", MODELS)), ["models_demo.slow"]),
    "xformers broken, not needed": (asked(RTX_4060, xformers_broken=True), []),
    "xformers broken, and no flash attention": (
        asked(RTX_4060, attention="plain", xformers_broken=True),
        ["attention_xformers_broken.slow"],
    ),
    "xformers works": (asked(RTX_4060, attention="xformers"), []),
    "no xformers, no flash attention": (asked(RTX_4060, attention="plain"), []),
    "a card that torch refuses as too old": (
        asked(
            card("GTX 1080", (6, 1), 8, 7),
            kernels=("sm_61",),
            error=MachineError("card_too_old", card="GTX 1080"),
        ),
        ["card_old.fails"],
    ),
    "Python 3.9": (pc(python=(3, 9)), ["python_old.fails"]),
    "Python 3.15": (pc(python=(3, 15)), ["python_new.slow"]),
    "Python of 32 bits": (pc(python_bits=32), ["python_32_bit.fails"]),
    "nothing is known": (MachineFacts((3, 12), 64, on_windows=False), ["no_card.slow", "ram_unknown.slow"]),
}
"""By name, the facts and the lines that are not good, in order."""

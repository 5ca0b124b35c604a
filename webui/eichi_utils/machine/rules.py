"""The meaning of a machine's facts for making videos on it: good, slow, or it will fail. Pure functions.

Each line is a code and values; its sentence in `locales/` is `check.<code>.<level>`, and with `.do`
appended the advice. Numbers are from `benchmarks/README.md` unless their docstring names another source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from diffusers_helper.limits import (
    BFLOAT16_CAPABILITY,
    GIB,
    HIDDEN_READ_FRACTION,
    OLDEST_CAPABILITY,
    SPARE_BYTES,
    VAE_BYTES,
    ram_reserve,
)
from diffusers_helper.ram import SystemMemory
from scripts.torch_build import Gpu, build_for, oldest_driver

from ..download.plan import RESERVE, gigabytes
from .disk import FolderFacts, ModelsFacts
from .torch_probe import TorchFacts

if TYPE_CHECKING:
    from diffusers_helper.device import DeviceChoice

Level = Literal["good", "slow", "fails"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
VRAM_GOOD = 5 * GIB
VRAM_LEAST = 9 * GIB // 2
"""Bytes of VRAM: a step takes 4.2 GiB at 640x608, and CUDA itself about half of one (reported only)."""
VRAM_RESERVED = VAE_BYTES + SPARE_BYTES
"""Bytes of VRAM that the engine leaves free before layers may stay."""
BLOCK_BYTES = 169 * GIB // 10
"""Bytes of the transformer's blocks, which are read in every step."""
PROCESS_BYTES = 2 * GIB
"""Bytes of RAM for the process, which holds 1.9 GiB during and after a job."""
COMMITTED_BYTES = 4 * GIB
"""Bytes that Windows commits for the process beside VRAM: an estimate, CUDA's libraries included."""
LITTLE_RAM = 12 * GIB
"""Bytes of RAM below which memory was never measured, and Windows itself takes half of it."""
STEP_SECONDS = 30.0
"""Seconds of a step on a laptop's RTX 4060, calculated from its arithmetic, not measured."""
MODEL_BYTES = 43_000_000_000
"""Bytes of all models, from the numbers of their parameters and what each is stored in."""
VIDEO_BYTES_PER_SECOND = 50_000_000
"""Bytes on the disk for a second of video while a job runs: raw frames of 640x608, and the MP4."""
LONGEST_SECONDS, SHORTEST_SECONDS = 120, 5


@dataclass(frozen=True)
class MachineFacts:
    """The facts about the machine before anything is loaded. None stands for an unknown one; sizes are bytes.

    `device`, `memory_limit` and `eight_bit` are options of the command line.
    """

    python: tuple[int, int]
    python_bits: int
    on_windows: bool
    device: "DeviceChoice" = "auto"
    memory_limit: int | None = None
    gpu: Gpu | None = None
    gpu_without_driver: bool = False
    torch: TorchFacts | None = None
    memory: SystemMemory | None = None
    models: ModelsFacts | None = None
    output: FolderFacts | None = None
    eight_bit: bool = False

    @property
    def used_gpu(self) -> Gpu | None:
        """The GPU, unless the CPU was requested."""
        return None if self.device == "cpu" else self.gpu


@dataclass(frozen=True)
class CheckLine:
    """The result of checking one thing. `values` fill the placeholders of its sentences."""

    code: str
    level: Level
    values: dict[str, object]


def _line(level: Level, code: str, /, **values: object) -> CheckLine:
    return CheckLine(code, level, values)


good, slow, fails = partial(_line, "good"), partial(_line, "slow"), partial(_line, "fails")


def check_machine(facts: MachineFacts) -> list[CheckLine]:
    """Return a line for each thing that is known or matters, in the order in which to repair them."""
    rules: Sequence[Callable[[MachineFacts], CheckLine | None]] = (
        *(_python, _gpu, _vram, _driver, _torch, _attention),
        *(_ram, _page_file, _models, _room_for_models, _output),
    )
    return [line for rule in rules if (line := rule(facts)) is not None]


def _python(facts: MachineFacts) -> CheckLine:
    version = _dotted(facts.python)
    if facts.python_bits < 64:
        return fails("python_32_bit", version=version)
    if facts.python < OLDEST_PYTHON:
        return fails("python_old", version=version)
    if facts.python > NEWEST_PYTHON:
        return slow("python_new", version=version)
    return good("python", version=version)


def _gpu(facts: MachineFacts) -> CheckLine:
    gpu = facts.gpu
    if facts.device == "cpu":
        return slow("card_unused")
    if gpu is None:
        if facts.gpu_without_driver:
            return fails("card_without_driver")
        return fails("no_card") if facts.device == "cuda" else slow("no_card")
    if gpu.capability is None:
        return slow("card_unknown", card=gpu.name)
    if gpu.capability < OLDEST_CAPABILITY:
        return fails("card_old", card=gpu.name)
    if gpu.capability < BFLOAT16_CAPABILITY:
        return slow("card_float16", card=gpu.name)
    return good("card", card=gpu.name)


def _vram(facts: MachineFacts) -> CheckLine | None:
    gpu, limit = facts.used_gpu, facts.memory_limit
    if gpu is None or gpu.free is None:
        return None
    if limit is not None and limit < min(VRAM_GOOD, gpu.free):
        level = fails if limit < VRAM_LEAST else slow
        return level("vram_limit", limit=_gb(limit), needed=_gb(VRAM_GOOD))
    if gpu.free >= VRAM_GOOD:
        return good("vram", free=_gb(gpu.free))
    level = fails if gpu.free < VRAM_LEAST else slow
    if gpu.memory is not None and gpu.memory < VRAM_GOOD:
        return level("vram_small", memory=_gb(gpu.memory), needed=_gb(VRAM_GOOD))
    return level("vram_taken", free=_gb(gpu.free), needed=_gb(VRAM_GOOD))


def _driver(facts: MachineFacts) -> CheckLine | None:
    gpu, torch = facts.used_gpu, facts.torch
    if gpu is None or gpu.driver is None or torch is None or torch.cuda is None:
        return None
    shown = {"driver": _dotted(gpu.driver), "cuda": _dotted(torch.cuda)}
    needed = oldest_driver(torch.cuda, facts.on_windows)
    if torch.gpu is not None:
        needed = gpu.driver  # it computes
    if needed is not None and gpu.driver < needed:
        return fails("driver", **shown, needed=_dotted(needed))
    return None if needed is None else good("driver", **shown)


def _torch(facts: MachineFacts) -> CheckLine | None:
    torch, gpu = facts.torch, facts.used_gpu
    if torch is None:
        return None
    if torch.version is None:
        return fails("torch_missing")
    if torch.failure is not None:
        lacks_dll = facts.on_windows and ("WinError 126" in torch.failure or "DLL" in torch.failure)
        return fails("torch_dll" if lacks_dll else "torch_broken", reason=torch.failure)
    lines = (_gpu(facts), _driver(facts))
    # whatever else PyTorch reports would come from that
    if gpu is None or any(line is not None and line.level == "fails" for line in lines):
        return good("torch", torch=torch.version)
    return _torch_with_gpu(torch, gpu)


def _torch_with_gpu(torch: TorchFacts, gpu: Gpu) -> CheckLine:
    if torch.gpu is None or torch.error is not None:
        if torch.cuda is None:
            return fails("torch_cpu_only", torch=torch.version, card=gpu.name)
        build = build_for(torch.cuda)
        if build is not None and gpu.capability is not None and not build.has_kernels_for(gpu.capability):
            return fails("torch_no_kernels", torch=torch.version, card=gpu.name)
    if torch.error is not None:
        return fails("torch_refuses", torch=torch.version, reason=torch.error)
    if torch.no_gpu_reason is not None:
        return fails("torch_blind", torch=torch.version, card=gpu.name, reason=torch.no_gpu_reason)
    return good("torch", torch=torch.version)


def _attention(facts: MachineFacts) -> CheckLine | None:
    torch = facts.torch
    if torch is None or torch.attention is None or facts.used_gpu is None:
        return None
    if torch.attention == "plain" and torch.xformers_broken:
        return slow("attention_xformers_broken")
    return good(f"attention_{torch.attention}")


def _ram(facts: MachineFacts) -> CheckLine:
    memory = facts.memory
    if memory is None:
        return slow("ram_unknown")
    shown = {"total": _gb(memory.total, digits=0), "free": _gb(memory.available)}
    if memory.committable < PROCESS_BYTES:
        return fails("ram_short", **shown, needed=_gb(PROCESS_BYTES))
    if memory.total < LITTLE_RAM:
        return slow("ram_small", **shown)
    if memory.available < PROCESS_BYTES + GIB:
        return slow("ram_taken", **shown)
    return _ram_for_models(facts, memory, shown)


def _ram_for_models(facts: MachineFacts, memory: SystemMemory, shown: dict[str, str]) -> CheckLine:
    """Judge whether the weights read in each step stay in the file cache, and if not, what reading costs."""
    gpu = facts.used_gpu
    if gpu is None:
        return good("ram", **shown)
    free_vram = gpu.free if gpu.free is not None else VRAM_GOOD
    free_vram = min(free_vram, facts.memory_limit or free_vram)
    streamed = max(_block_bytes(facts) - max(free_vram - VRAM_RESERVED, 0), 0)
    room = memory.available - PROCESS_BYTES - ram_reserve(memory.total)
    if room >= streamed:
        return good("ram", **shown)
    speed = facts.models.bytes_per_second if facts.models is not None else None
    shown = shown | {"streamed": _gb(streamed, digits=0)}
    if speed is None or streamed / speed <= HIDDEN_READ_FRACTION * STEP_SECONDS:
        return good("ram_and_disk", **shown)
    return slow("ram_and_disk", **shown, seconds=f"{streamed / speed:.0f}")


def _block_bytes(facts: MachineFacts) -> int:
    return BLOCK_BYTES // 2 if facts.eight_bit else BLOCK_BYTES


def _page_file(facts: MachineFacts) -> CheckLine | None:
    """Check the page file: Windows commits memory for a program's VRAM, too (reported, unmeasured)."""
    memory, gpu = facts.memory, facts.used_gpu
    if memory is None or memory.page_file is None:
        return None
    free_vram = gpu.free or 0 if gpu is not None else 0
    resident = _block_bytes(facts) + VRAM_RESERVED
    needed = COMMITTED_BYTES + min(free_vram, resident, facts.memory_limit or free_vram)
    if memory.page_file < GIB // 4:
        level = good if memory.committable >= needed else fails
        return level("page_file_off", promised=_gb(memory.committable), needed=_gb(needed))
    if memory.committable < COMMITTED_BYTES:  # else Windows makes it larger itself
        return slow("page_file", promised=_gb(memory.committable), needed=_gb(COMMITTED_BYTES))
    return good("page_file", size=_gb(memory.page_file))


def _models(facts: MachineFacts) -> CheckLine | None:
    models = facts.models
    if models is None:
        return None
    path = str(models.folder.path)
    if models.state == "partly":
        return fails("models_partly", path=path, reason=models.error)
    if models.state == "demo":
        return slow("models_demo", path=path)
    if models.state == "complete":
        return good("models", path=path, size=gigabytes(models.num_bytes))
    if _lacks_gpu(facts):
        return slow("models_missing_without_card")
    return fails("models_missing", path=path, size=gigabytes(MODEL_BYTES))


def _lacks_gpu(facts: MachineFacts) -> bool:
    """Return whether the real models would be of no use, so that nobody is asked to download them."""
    return facts.used_gpu is None and not facts.gpu_without_driver


def _room_for_models(facts: MachineFacts) -> CheckLine | None:
    models = facts.models
    if models is None or models.state in ("complete", "demo") or models.folder.free is None:
        return None
    if _lacks_gpu(facts):
        return None
    free, needed = models.folder.free, max(MODEL_BYTES - models.num_bytes, 0) + RESERVE
    shown = {"path": str(models.folder.path), "free": gigabytes(free), "needed": gigabytes(needed)}
    return fails("models_disk", **shown) if free < needed else good("models_disk", **shown)


def _output(facts: MachineFacts) -> CheckLine | None:
    output = facts.output
    if output is None:
        return None
    path = str(output.path)
    if not output.writable:
        return fails("output_not_writable", path=path)
    if output.free is None:
        return slow("output_unknown", path=path)
    shown = {"path": path, "free": gigabytes(output.free)}
    seconds = output.free // VIDEO_BYTES_PER_SECOND
    if seconds < SHORTEST_SECONDS:
        return fails("output", **shown)
    return slow("output", **shown, seconds=seconds) if seconds < LONGEST_SECONDS else good("output", **shown)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)


def _gb(num_bytes: int, digits: int = 1) -> str:
    """Format GiB, in which memory is counted; disks and downloads are counted in decimal gigabytes."""
    return f"{num_bytes / GIB:.{digits}f}"

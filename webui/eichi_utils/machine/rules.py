"""The meaning of a machine's facts for making videos on it: good, slow, or it will fail. Pure functions.

Each line is a code and values; its sentence in `locales/` is `check.<code>.<level>`, and with `.do`
appended the advice. Numbers are from `docs/measurements.md` unless their docstring names another source.
"""

import re
from collections.abc import Iterator, Sequence
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
from diffusers_helper.public import OutdatedWeights
from diffusers_helper.ram import SystemMemory
from scripts.torch_build import Gpu, build_for, oldest_driver

from ..download.model_folders import RESERVE, gigabytes
from .disk import FolderFacts, ModelsFacts
from .torch_probe import TorchFacts

if TYPE_CHECKING:
    from diffusers_helper.device import DeviceChoice

Level = Literal["good", "slow", "fails"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
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
OUTDATED = "eight_bit_outdated"
"""The code of the line about what can be deleted."""


@dataclass(frozen=True)
class MachineFacts:
    """The facts about the machine before anything is loaded. None stands for an unknown one; sizes are bytes.

    `device` and `memory_limit` are options of the command line, `eight_bit` is the choice of weights; for the
    CPU, `gpu` is None. `outdated` are 8-bit weights that an earlier version has left.
    `compiler_failure` is the reason why an earlier job could not compile. With `demo`, the demo's tiny models
    are asked for.
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
    outdated: tuple[OutdatedWeights, ...] = ()
    compiler_failure: str | None = None
    demo: bool = False

    def usable_vram(self, unknown: int = 0) -> int:
        """Return the bytes of VRAM that a job may use; `unknown` stands for free ones not reported."""
        free = unknown if self.gpu is None or self.gpu.free is None else self.gpu.free
        return min(free, self.memory_limit or free)


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
    lines = (
        *(_python(facts), _gpu(facts), _vram(facts), _driver(facts), _torch(facts)),
        *(_triton(facts), *_kernels(facts), _ram(facts), _page_file(facts), *_models(facts)),
        *(_outdated(facts), _output(facts)),
    )
    return [line for line in lines if line is not None]


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
    if facts.demo and gpu is None and facts.device != "cuda":
        return good("demo_without_card")
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
    gpu = facts.gpu
    if gpu is None or gpu.free is None or facts.demo:
        return None
    usable, needed = facts.usable_vram(), _gb(VRAM_GOOD)
    if usable >= VRAM_GOOD:
        return good("vram", free=_gb(gpu.free))
    level = fails if usable < VRAM_LEAST else slow
    if usable < gpu.free:
        return level("vram_limit", limit=_gb(usable), needed=needed)
    if gpu.memory is not None and gpu.memory < VRAM_GOOD:
        return level("vram_small", memory=_gb(gpu.memory), needed=needed)
    return level("vram_taken", free=_gb(gpu.free), needed=needed)


def _driver(facts: MachineFacts) -> CheckLine | None:
    gpu, torch = facts.gpu, facts.torch
    if gpu is None or gpu.driver is None or torch is None or torch.cuda is None:
        return None
    needed = oldest_driver(torch.cuda, facts.on_windows) if torch.gpu is None else gpu.driver
    if needed is None:
        return None
    shown = {"driver": _dotted(gpu.driver), "cuda": _dotted(torch.cuda)}
    if gpu.driver < needed:
        return fails("driver", **shown, needed=_dotted(needed).removesuffix(".0"))
    return good("driver", **shown)


def _torch(facts: MachineFacts) -> CheckLine | None:
    torch, gpu = facts.torch, facts.gpu
    if torch is None:
        return None
    if torch.version is None:
        return fails("torch_missing")
    if torch.failure is not None:
        lacks_dll = facts.on_windows and re.search(r"WinError (126|127|1114)\b|DLL", torch.failure)
        return fails("torch_dll" if lacks_dll else "torch_broken", reason=torch.failure)
    lines = (_gpu(facts), _driver(facts))
    # whatever else PyTorch reports would come from that
    if gpu is None or any(line is not None and line.level == "fails" for line in lines):
        return good("torch", torch=torch.version)
    return _torch_with_gpu(torch, gpu)


def _torch_with_gpu(torch: TorchFacts, gpu: Gpu) -> CheckLine:
    if torch.gpu is not None and torch.error is None:
        return good("torch", torch=torch.version)
    if torch.cuda is None:
        return fails("torch_cpu_only", torch=torch.version, card=gpu.name)
    has_kernels = gpu.capability is None or build_for(torch.cuda).has_kernels_for(gpu.capability)
    if torch.lacks_kernels or not has_kernels:
        return fails("torch_no_kernels", torch=torch.version, card=gpu.name)
    if torch.error is not None:
        return fails("torch_refuses", torch=torch.version, reason=torch.error)
    if torch.no_gpu_reason is not None:
        return fails("torch_blind", torch=torch.version, card=gpu.name, reason=torch.no_gpu_reason)
    return good("torch", torch=torch.version)


def _triton(facts: MachineFacts) -> CheckLine | None:
    """Judge Triton where it could be: on Windows there is none for RTX 20."""
    torch, capability = facts.torch, facts.gpu.capability if facts.gpu is not None else None
    if torch is None or torch.cuda is None or capability is None or capability < OLDEST_CAPABILITY:
        return None
    if torch.triton is None:
        return slow("triton_missing") if capability >= BFLOAT16_CAPABILITY else None
    if facts.compiler_failure is not None:
        return slow("triton_failed", triton=torch.triton, reason=facts.compiler_failure)
    return good("triton", triton=torch.triton)


def _kernels(facts: MachineFacts) -> Iterator[CheckLine]:
    """Name the kernels that were chosen, where they were tried."""
    torch = facts.torch
    if torch is None or facts.gpu is None:
        return
    if torch.attention is not None:
        level = slow if torch.attention == "math" else good
        yield level(f"attention_{torch.attention}")
    if torch.product is not None:
        yield good(f"eight_bit_{torch.product}")
    if torch.int8_attention:
        yield good("int8_attention")


def _ram(facts: MachineFacts) -> CheckLine:
    """Judge free RAM, and what it costs if the weights read in each step don't stay in the file cache."""
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
    streamed = max(_block_bytes(facts) - max(facts.usable_vram(unknown=VRAM_GOOD) - VRAM_RESERVED, 0), 0)
    room = memory.available - PROCESS_BYTES - ram_reserve(memory.total)
    if facts.gpu is None or room >= streamed:
        return good("ram", **shown)
    speed = facts.models.bytes_per_second if facts.models is not None else None
    shown = shown | {"streamed": _gb(streamed, digits=0)}
    if speed is None or streamed / speed <= HIDDEN_READ_FRACTION * STEP_SECONDS:
        return good("ram_and_disk", **shown)
    return slow("ram_and_disk", **shown, seconds=f"{streamed / speed:.0f}")


def _block_bytes(facts: MachineFacts) -> int:
    if facts.demo:
        return 0
    return BLOCK_BYTES // 2 if facts.eight_bit else BLOCK_BYTES


def _page_file(facts: MachineFacts) -> CheckLine | None:
    """Check the page file: Windows commits memory for a program's VRAM, too (reported, unmeasured)."""
    memory = facts.memory
    if memory is None or memory.page_file is None:
        return None
    needed = COMMITTED_BYTES + min(_block_bytes(facts) + VRAM_RESERVED, facts.usable_vram())
    if memory.page_file < GIB // 4:
        level = good if memory.committable >= needed else fails
        return level("page_file_off", promised=_gb(memory.committable), needed=_gb(needed))
    if memory.committable < COMMITTED_BYTES:  # else Windows makes it larger itself
        return slow("page_file", promised=_gb(memory.committable), needed=_gb(COMMITTED_BYTES))
    return good("page_file", size=_gb(memory.page_file))


def _models(facts: MachineFacts) -> Iterator[CheckLine]:
    models = facts.models
    if models is None:
        return
    path, free = str(models.folder.path), models.folder.free
    if models.folder.in_onedrive:
        yield slow("models_onedrive", path=path, size=gigabytes(MODEL_BYTES))
    needs_models = facts.gpu is not None or facts.gpu_without_driver  # else they would be of no use
    if models.state == "complete":
        yield good("models", path=path, size=gigabytes(models.num_bytes))
    elif models.state == "demo":
        yield good("models_demo") if facts.demo else slow("models_demo", path=path)
    elif models.state == "partly":
        yield fails("models_partly", path=path, reason=models.error)
    elif needs_models:
        yield fails("models_missing", path=path, size=gigabytes(MODEL_BYTES))
    else:
        yield slow("models_missing_without_card")
    if models.state in ("partly", "missing") and needs_models and free is not None:
        needed = max(MODEL_BYTES - models.num_bytes, 0) + RESERVE
        level = fails if free < needed else good
        yield level("models_disk", path=path, free=gigabytes(free), needed=gigabytes(needed))


def _outdated(facts: MachineFacts) -> CheckLine | None:
    if not facts.outdated:
        return None
    path = ", ".join(str(found.folder) for found in facts.outdated)
    return slow(OUTDATED, path=path, size=gigabytes(sum(found.num_bytes for found in facts.outdated)))


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

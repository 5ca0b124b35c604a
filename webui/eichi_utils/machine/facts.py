"""The facts about the machine before anything is loaded. None stands for an unknown one; sizes are bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffusers_helper.errors import EngineError
from diffusers_helper.ram import SystemMemory
from scripts.torch_build import Gpu

if TYPE_CHECKING:
    from diffusers_helper.device import DeviceChoice

AttentionKernel = Literal["flash", "xformers", "plain"]
ModelsState = Literal["complete", "demo", "partly", "missing"]


@dataclass(frozen=True)
class TorchReport:
    """The report of PyTorch itself, made in a process of its own.

    Attributes:
        failure: the reason why there is none: PyTorch does not load, or does not end.
        gpu: the GPU that it computes on; without one, `no_gpu_reason`.
        error: the reason why the engine would refuse the GPU.
    """

    failure: str | None = None
    gpu: Gpu | None = None
    no_gpu_reason: str | None = None
    error: EngineError | None = None
    attention: AttentionKernel | None = None
    xformers_broken: bool = False


@dataclass(frozen=True)
class TorchFacts:
    """The installed PyTorch: `version` is None if it isn't, `cuda` if its build is for the CPU."""

    version: str | None
    cuda: tuple[int, int] | None = None
    report: TorchReport | None = None


@dataclass(frozen=True)
class FolderFacts:
    """A folder to write to; `free` and `writable` are those of its nearest parent until it is made."""

    path: Path
    free: int | None
    writable: bool = True


@dataclass(frozen=True)
class ModelsFacts:
    """The models in a folder: their bytes, the `error` of incomplete ones, and the speed of reading them."""

    state: ModelsState
    folder: FolderFacts
    error: EngineError | None = None
    num_bytes: int = 0
    bytes_per_second: float | None = None


@dataclass(frozen=True)
class MachineFacts:
    """All facts. `device`, `memory_limit` and `eight_bit` are options of the command line."""

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

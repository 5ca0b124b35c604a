"""What is known of the machine before anything is loaded: numbers and names.

None stands where a fact cannot be had. Sizes are bytes. Knows neither how a fact is found nor what it means.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffusers_helper.errors import EngineError
from diffusers_helper.ram import SystemMemory

if TYPE_CHECKING:
    from diffusers_helper.device import DeviceChoice

Capability = tuple[int, int]
AttentionKernel = Literal["flash", "xformers", "plain"]
ModelsState = Literal["complete", "demo", "partly", "missing"]


@dataclass(frozen=True)
class CardFacts:
    """The NVIDIA card that computes: its generation as compute capability, its driver's version in parts."""

    name: str
    capability: Capability | None = None
    memory: int | None = None
    free: int | None = None
    driver: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TorchAnswer:
    """What PyTorch itself said, asked in a process of its own.

    Attributes:
        failure: why it could not be asked: it does not load, or never answered.
        card: the card that it computes on; None where it sees none, and then `blindness` is its reason.
        kernels: what its kernels were built for (`sm_86`, `compute_120`); None where it does not say.
        error: why the engine would refuse the card.
        attention: what computes attention on the card.
    """

    failure: str | None = None
    card: CardFacts | None = None
    blindness: str | None = None
    kernels: tuple[str, ...] | None = None
    error: EngineError | None = None
    attention: AttentionKernel | None = None
    xformers_broken: bool = False


@dataclass(frozen=True)
class TorchFacts:
    """PyTorch as it is installed. `version` None means it isn't, `cuda` None that its build has no CUDA."""

    version: str | None
    cuda: tuple[int, int] | None = None
    answer: TorchAnswer | None = None


@dataclass(frozen=True)
class FolderFacts:
    """A folder that is written to, or will be; `writable` is of the nearest folder that is there."""

    path: Path
    free: int | None
    writable: bool = True


@dataclass(frozen=True)
class ModelsFacts:
    """The models' folder.

    Attributes:
        error: what is wrong with an incomplete one.
        num_bytes: what is there of the three repositories.
        bytes_per_second: how fast their largest file was read just now; None where that was not tried.
    """

    state: ModelsState
    folder: FolderFacts
    error: EngineError | None = None
    num_bytes: int = 0
    bytes_per_second: float | None = None


@dataclass(frozen=True)
class MachineFacts:
    """Everything that the check goes by. The command line says `device`, `memory_limit` and `eight_bit`."""

    python: tuple[int, int]
    python_bits: int
    on_windows: bool
    device: "DeviceChoice" = "auto"
    memory_limit: int | None = None
    card: CardFacts | None = None
    card_without_driver: bool = False
    torch: TorchFacts | None = None
    memory: SystemMemory | None = None
    models: ModelsFacts | None = None
    output: FolderFacts | None = None
    eight_bit: bool = False

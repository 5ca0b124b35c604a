"""The device that computes, and its number formats: chosen once a run and passed down.

Must run before diffusers is imported, because diffusers fails together with a broken xformers.
"""

import importlib.util
import logging
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .errors import InputError, MachineError
from .limits import BFLOAT16_CAPABILITY, OLDEST_CAPABILITY
from .memory import is_out_of_memory

logger = logging.getLogger(__name__)

DeviceChoice = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True)
class Compute:
    """The device and the dtypes of the models on it.

    Attributes:
        encoders: dtype of all models but the transformer.
        memory_limit: the most bytes of VRAM (on the CPU, of RAM) to use; None for all that is free.
        compiles: whether the transformer's blocks are compiled, which takes Triton. (A CPU needs a C++
            compiler, and gains little.)
    """

    device: torch.device
    encoders: torch.dtype
    transformer: torch.dtype
    memory_limit: int | None = None
    compiles: bool = False

    @property
    def activations(self) -> torch.dtype:
        """The dtype between the transformer's layers, whose values float16 cannot hold."""
        return torch.float32 if self.transformer == torch.float16 else self.transformer


def choose_compute(choice: DeviceChoice, memory_limit: int | None = None) -> Compute:
    """Choose the device, its dtypes and whether to compile; `auto` takes a CUDA GPU, else the CPU.

    Raises:
        InputError: CUDA was requested and there is none.
        MachineError: the GPU is too old, or this PyTorch has no kernels for it.
    """
    hide_broken_xformers()
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return Compute(torch.device("cpu"), torch.float32, torch.float32, memory_limit)
    if not torch.cuda.is_available():
        raise InputError("no_cuda")
    device = torch.device("cuda", torch.cuda.current_device())
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        raise MachineError("card_too_old", card=name)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min((memory_limit or total) / total, 1.0), device)
    _try_out(device, name)
    transformer = torch.bfloat16 if capability >= BFLOAT16_CAPABILITY else torch.float16
    compiles = importlib.util.find_spec("triton") is not None
    return Compute(device, torch.float16, transformer, memory_limit, compiles)


def why_uncompiled(compute: Compute) -> str | None:
    """Return why blocks are not compiled, in English; None where they are."""
    if compute.compiles:
        return None
    return "a CPU runs the blocks as they are" if compute.device.type == "cpu" else "Triton is not installed"


def hide_broken_xformers() -> None:
    """Make an xformers that cannot be imported look as if it were not installed."""
    logging.getLogger("xformers").setLevel(logging.ERROR)
    if sys.modules.get("xformers", True) is None or importlib.util.find_spec("xformers") is None:
        return
    try:
        import xformers.ops  # noqa: F401
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything)
        logger.info("xformers does not load: %s", error)
        modules: dict[str, Any] = sys.modules
        modules["xformers"] = modules["xformers.ops"] = None


def _try_out(device: torch.device, name: str) -> None:
    """Run one small product: a PyTorch built for other GPUs fails here with a clear error, not in a job."""
    try:
        ones = torch.ones(16, 16, device=device, dtype=torch.float16)
        if (ones @ ones).sum().item() != 16 * 16 * 16:
            raise MachineError("card_computes_wrong", card=name)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MachineError("out_of_memory") from error
        raise MachineError("card_not_supported", card=name, torch=torch.__version__) from error

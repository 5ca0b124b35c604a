"""Which device computes, and in which number formats. Decided once a run and passed down."""

from dataclasses import dataclass
from typing import Literal

import torch

from .errors import InputError, MachineError
from .memory import is_out_of_memory
from .transformer.attention import hide_broken_xformers
from .transformer.compiling import can_compile

DeviceChoice = Literal["auto", "cuda", "cpu"]
OLDEST_CAPABILITY = (7, 0)
"""Below Volta there are no matrix units: a video would take days."""
BFLOAT16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Compute:
    """The device and the dtypes of the models on it; `projection` is the dtype of the last layer."""

    device: torch.device
    encoders: torch.dtype
    vae: torch.dtype
    transformer: torch.dtype
    projection: torch.dtype = torch.float32
    memory_limit: int | None = None
    """The most bytes of VRAM (on the CPU, of RAM) that may be used; None for all that is free."""
    compiles: bool = False
    """Whether the transformer's blocks are compiled."""


def choose_compute(choice: DeviceChoice, memory_limit: int | None = None) -> Compute:
    """Pick the device, before any model class is imported; `auto` takes a CUDA card, else the CPU.

    Raises:
        InputError: CUDA was asked for and there is none.
        MachineError: the card is too old, or this PyTorch has no kernels for it.
    """
    hide_broken_xformers()
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        cpu = torch.device("cpu")
        return Compute(cpu, torch.float32, torch.float32, torch.float32, memory_limit=memory_limit)
    if not torch.cuda.is_available():
        raise InputError("no_cuda")
    device = torch.device("cuda", torch.cuda.current_device())
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        raise MachineError("card_too_old", card=name)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min((memory_limit or total) / total, 1.0), device)
    _try_card(device, name)
    has_bfloat16 = capability >= BFLOAT16_CAPABILITY
    transformer = torch.bfloat16 if has_bfloat16 else torch.float16
    return Compute(
        device,
        torch.float16,
        torch.float16,
        transformer,
        memory_limit=memory_limit,
        compiles=can_compile(device),
    )


def _try_card(device: torch.device, name: str) -> None:
    """Run one small product: a torch built for other cards fails here with a sentence, not in the middle."""
    try:
        ones = torch.ones(16, 16, device=device, dtype=torch.float16)
        if (ones @ ones).sum().item() != 16 * 16 * 16:
            raise MachineError("card_computes_wrong", card=name)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MachineError("out_of_memory") from error
        raise MachineError("card_not_supported", card=name, torch=torch.__version__) from error

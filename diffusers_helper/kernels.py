"""Kernels of ours in the place of torch's operations: only where Triton is, and only after they were right.

Whatever Triton does, the app works, and says nothing.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from .memory import is_out_of_memory

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def triton_or_torch(
    own: _T, load: Callable[[], _T], try_out: Callable[[_T, torch.device], None], device: torch.device
) -> _T:
    """What `load` imports, if the device is a card and `try_out` raises nothing there; else torch's `own`.

    Raises:
        torch.OutOfMemoryError: there is too little memory to try; nothing is decided by that.
    """
    if device.type != "cuda":
        return own
    try:
        kernels = load()
        try_out(kernels, device)
    except ImportError:
        return own
    except Exception as error:  # a compiler may raise anything
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.info("kernels of %s cannot be used: %s", load.__module__, reason[:300])
        return own
    return kernels

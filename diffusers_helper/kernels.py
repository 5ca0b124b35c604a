"""Optional kernels instead of PyTorch's native ones: used only where they run and compute the same."""

import logging
from collections.abc import Callable, Sequence

import torch

from .memory import is_out_of_memory

logger = logging.getLogger(__name__)


def agrees(
    name: str,
    compute: Callable[[], Sequence[torch.Tensor]],
    expected: Sequence[torch.Tensor],
    tolerance: float,
) -> bool:
    """Return whether `compute` runs and gives the expected tensors, to a relative error of `tolerance`.

    Any failure is logged, none is raised but one.

    Raises:
        torch.OutOfMemoryError: there is too little memory to try, which decides nothing.
    """
    try:
        errors = [relative_error(f, e) for f, e in zip(compute(), expected, strict=True)]
    except Exception as failure:  # a compiler, or what is missing or broken, may raise anything
        if is_out_of_memory(failure):
            raise
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
        logger.info("%s cannot be used: %s", name, reason[:300])
        return False
    is_right = all(error <= tolerance for error in errors)  # false for NaN
    if not is_right:
        logger.info("%s cannot be used: wrong by %s", name, ", ".join(f"{error:.3g}" for error in errors))
    return is_right


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference in units of the expected tensor's norm."""
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm())

"""Optional kernels instead of PyTorch's native ones: used only where they run and compute the same."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .files.compiler_failure import read_failure, write_failure
from .files.disk_errors import is_limit
from .memory import is_out_of_memory

logger = logging.getLogger(__name__)


Compute = Callable[[], Sequence[torch.Tensor]]


@dataclass
class FailedKernels:
    """The record of our kernels that failed on this machine. A new one, without a folder, knows of none.

    Attributes:
        folder: holds a folder for each.
        versions: all that decides whether the compiler works here.
    """

    folder: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def reason(self, name: str) -> str | None:
        """Return why a kernel failed with these versions; None where nothing is known of that."""
        return None if self.folder is None else read_failure(self.folder / name, self.versions)

    def add(self, name: str, failure: Exception, reason: str) -> None:
        """Record a failure that will come again: neither a missing Triton, nor a full disk."""
        passes = isinstance(failure, ImportError) or (isinstance(failure, OSError) and is_limit(failure))
        if self.folder is not None and not passes:
            write_failure(self.folder / name, self.versions, reason)


FAILED = FailedKernels()
"""The record in use; set by the engine."""


def compiles(name: str, compute: Compute, expected: Sequence[torch.Tensor], tolerance: float) -> bool:
    """Do `agrees` for a kernel that Triton compiles: one that failed is not tried until something changes."""
    if (reason := FAILED.reason(name)) is not None:
        logger.info("%s is not tried, because it failed before: %s", name, reason)
        return False
    return agrees(name, compute, expected, tolerance, lambda *failure: FAILED.add(name, *failure))


def agrees(
    name: str,
    compute: Compute,
    expected: Sequence[torch.Tensor],
    tolerance: float,
    on_failure: Callable[[Exception, str], object] = lambda *_: None,
) -> bool:
    """Return whether `compute` runs and gives the expected tensors, to a relative error of `tolerance`.

    Any failure is logged, none is raised but one; `on_failure` gets what was raised, and its first line.

    Raises:
        torch.OutOfMemoryError: there is too little memory to try, which decides nothing.
    """
    try:
        errors = [relative_error(f, e) for f, e in zip(compute(), expected, strict=True)]
    except Exception as failure:  # a compiler, or what is missing or broken, may raise anything
        if is_out_of_memory(failure):
            raise
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0][:300]
        logger.info("%s cannot be used: %s", name, reason)
        on_failure(failure, reason)
        return False
    is_right = all(error <= tolerance for error in errors)  # false for NaN
    if not is_right:
        logger.info("%s cannot be used: wrong by %s", name, ", ".join(f"{error:.3g}" for error in errors))
    return is_right


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference in units of the expected tensor's norm."""
    expected = expected.float()
    return float((found.float() - expected).norm() / expected.norm())

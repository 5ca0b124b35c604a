"""Running the transformer's blocks: compiled where the machine can, as they are everywhere else.

A kind of block has one graph (for each attention) for all its layers, sections, jobs and prompts: weights
and modulation are its inputs, and the numbers of tokens are left open. Whatever the compiler does, the app
works, and tells the log only: what does not compile, or whose compiled numbers are wrong, runs as it is.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..memory import is_out_of_memory

logger = logging.getLogger(__name__)

States = tuple[torch.Tensor, torch.Tensor]
TOLERANCE = 0.1
"""The most that compiled numbers may be away from the block's own, relatively. The compiler rounds at other
places: in bfloat16 that makes 0.005, in 8 bits more. What is wrong is wrong by much more (measured: an
attention left out 0.35, garbled 0.5)."""
COMPILED_FORWARD = "compiled_forward"
"""A block with a function of this name is compiled as that is written: of the block and its arguments."""


def keep_compiled(folder: Path) -> None:
    """Let compiled graphs lie in `folder`, for the next time that the app runs. Call it before any is made.

    The compiler gets one process, this one: each further one would import torch, for some seconds less.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))  # the VAE's kernel
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


class EagerBlocks:
    """Calls blocks as they are."""

    is_compiling = False

    def __call__(self, block: nn.Module, *arguments: Any) -> States:
        """What `block(*arguments)` gives."""
        return block(*arguments)

    def is_ready(self, attention: str) -> bool:  # noqa: ARG002
        """Whether `prepare` has nothing to do for blocks with such an attention."""
        return True

    def prepare(self, blocks: Sequence[nn.Module], arguments: Sequence[Any], attention: str) -> None:
        """Get ready to run such blocks: one of each kind, with weights, and arguments of the usual sizes."""

    def disable(self, reason: str) -> None:
        """Call blocks as they are from now on."""


class CompiledBlocks(EagerBlocks):
    """Compiles each kind of block when it meets the first one. Keep one for as long as the app runs."""

    def __init__(self, backend: str | Callable = "inductor") -> None:
        self._backend = backend
        self._compiled: Callable[..., States] | None = None
        self._ready: set[str] = set()
        self.is_compiling = True
        """False once that was given up."""

    def __call__(self, block: nn.Module, *arguments: Any) -> States:
        """What `block(*arguments)` gives, but for the rounding.

        Raises:
            torch.OutOfMemoryError: there is too little memory; nothing is given up for that.
        """
        failure = None
        if self.is_compiling:
            try:
                return self._call_compiled(block, *map(_plain, arguments))
            except Exception as error:  # a compiler may raise anything
                cause = getattr(error, "inner_exception", error)
                if is_out_of_memory(cause):
                    raise torch.OutOfMemoryError(str(cause)) from error
                failure = f"{type(error).__name__}: {error}"
        states = block(*arguments)
        if failure is not None:  # what fails as it is, too, is not the compiler's fault
            self.disable(failure)
        return states

    def _call_compiled(self, block: nn.Module, *arguments: Any) -> States:
        if self._compiled is None:
            self._compiled = torch.compile(_call, backend=self._backend, fullgraph=True, dynamic=True)
        return self._compiled(block, *arguments)

    def is_ready(self, attention: str) -> bool:
        return not self.is_compiling or attention in self._ready

    def prepare(self, blocks: Sequence[nn.Module], arguments: Sequence[Any], attention: str) -> None:
        """Compile these blocks and compare them with themselves."""
        for block in blocks:
            found, wanted = self(block, *arguments), block(*arguments)
            worst = max(_relative_error(f, w) for f, w in zip(found, wanted, strict=True))
            if not worst <= TOLERANCE:
                self.disable(f"{type(block).__name__} is {worst:.2g} away from itself")
        self._ready.add(attention)

    def disable(self, reason: str) -> None:
        logger.info("blocks are not compiled: %s", reason.splitlines()[0][:300])
        self._compiled, self.is_compiling = None, False


def _call(block: nn.Module, *arguments: Any) -> States:
    forward = getattr(block, COMPILED_FORWARD, None)
    return block(*arguments) if forward is None else forward(block, *arguments)


def _plain(value: Any) -> Any:
    """A state `(1, n, dim)` that may be a piece of a longer one, as if it were none: the graph is made for
    strides, too."""
    return value[0].contiguous()[None] if isinstance(value, torch.Tensor) and value.ndim == 3 else value


def _relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())

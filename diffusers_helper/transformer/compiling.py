"""The runners of the transformer's blocks: compiled where the machine can, eager everywhere else.

A kind of block has one graph (for each attention) for all its layers, sections, jobs and prompts: weights
and modulation are its inputs, and the numbers of tokens are left open. Blocks that do not compile, or whose
compiled numbers are wrong, run eagerly; the reason is only logged.
"""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files.ascii_folder import ascii_folder
from ..kernels import agrees
from ..memory import is_out_of_memory

logger = logging.getLogger(__name__)

States = tuple[torch.Tensor, torch.Tensor]
TOLERANCE = 0.02
"""The largest relative error of compiled blocks. The compiler rounds elsewhere, which makes 0.005 in bfloat16
and 0.003 in 8 bits; real faults are larger (measured: attention left out 0.35, garbled 0.5)."""
COMPILED_FORWARD = "compiled_forward"
"""The attribute of a block that holds a function of it and its arguments, which is compiled in its place."""


def keep_compiled(folder: Path) -> None:
    """Store compiled graphs in `folder` for the next start. Call it before anything is compiled.

    The compiler works in this process alone: each further one would import torch to save a few seconds.
    """
    folder = ascii_folder(folder)  # Triton cannot read others on Windows
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))  # our kernels
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


class CompiledBlocks:
    """Compiles each kind of block when the first one is called. Keep one object while the app runs."""

    def __init__(self, backend: str | Callable = "inductor") -> None:
        self._backend = backend
        self._compiled: Callable[..., States] | None = None
        self._ready: set[str] = set()
        self.is_compiling = True
        """False after `disable`."""

    def __call__(self, block: nn.Module, *arguments: Any) -> States:
        """Return `block(*arguments)`, but for the rounding.

        Raises:
            torch.OutOfMemoryError: there is too little memory, which is no reason to disable compiling.
        """
        failure = None
        if self.is_compiling:
            try:
                if self._compiled is None:
                    self._compiled = torch.compile(_call, backend=self._backend, fullgraph=True, dynamic=True)
                return self._compiled(block, *map(_contiguous, arguments))
            except Exception as error:  # a compiler may raise anything
                cause = getattr(error, "inner_exception", error)
                if is_out_of_memory(cause):
                    raise torch.OutOfMemoryError(str(cause)) from error
                failure = f"{type(error).__name__}: {error}"
        states = block(*arguments)
        if failure is not None:  # what also fails eagerly is not the compiler's fault
            self.disable(failure)
        return states

    def is_ready(self, attention: str) -> bool:
        """Return whether `prepare` has nothing to do for blocks with this attention backend."""
        return not self.is_compiling or attention in self._ready

    def prepare(self, blocks: Sequence[nn.Module], arguments: Sequence[Any], attention: str) -> None:
        """Compile blocks like these, one of each kind with weights, and compare them with themselves.

        Args:
            arguments: the blocks' arguments, of the sizes to be expected.
        """
        for block in blocks:
            name = f"compiled {type(block).__name__}"
            if not agrees(name, partial(self, block, *arguments), block(*arguments), TOLERANCE):
                self.disable(f"{name} is wrong")
        self._ready.add(attention)

    def disable(self, reason: str) -> None:
        """Call blocks eagerly from now on."""
        if self.is_compiling:
            logger.info("blocks are not compiled: %s", reason.splitlines()[0][:300])
        self._compiled, self.is_compiling = None, False


class EagerBlocks(CompiledBlocks):
    """Calls blocks eagerly."""

    def __init__(self) -> None:
        super().__init__()
        self.is_compiling = False


def _call(block: nn.Module, *arguments: Any) -> States:
    forward = getattr(block, COMPILED_FORWARD, None)
    return block(*arguments) if forward is None else forward(block, *arguments)


def _contiguous(value: Any) -> Any:
    """Return a state `(1, n, dim)` with contiguous strides, for which the graph is made."""
    return value[0].contiguous()[None] if isinstance(value, torch.Tensor) and value.ndim == 3 else value

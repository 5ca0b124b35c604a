"""The runners of the transformer's blocks: compiled where the machine can, eager everywhere else.

A kind of block has one graph (for each attention) for all its layers, sections, jobs and prompts: weights
and modulation are its inputs, and the numbers of tokens are left open. Blocks that do not compile, or whose
compiled numbers are wrong, run eagerly; the reason is reported once.
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
from ..files.disk_errors import is_limit
from ..kernels import agrees
from ..memory import is_out_of_memory
from .saved_graphs import COMPILED_FORWARD, SavedGraphs

logger = logging.getLogger(__name__)

States = tuple[torch.Tensor, torch.Tensor]
TOLERANCE = 0.02
"""The largest relative error of compiled blocks. The compiler rounds elsewhere, which makes 0.005 in bfloat16
and 0.003 in 8 bits; real faults are larger (measured: attention left out 0.35, garbled 0.5)."""
COMPILED_TOLERANCE = "compiled_tolerance"
"""The attribute of a block that holds another tolerance, where the function in its place rounds more."""


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

    def __init__(
        self,
        backend: str | Callable = "inductor",
        on_failure: Callable[[str], None] = lambda _: None,
        saved: SavedGraphs | None = None,
    ) -> None:
        """
        Args:
            on_failure: is called with the reason when the compiler fails in a way that will come again.
            saved: the graphs of earlier starts.
        """
        self._backend, self._on_failure = backend, on_failure
        self._untold: str | None = None
        self._compiled: Callable[..., States] | None = None
        self._saved = saved
        self._graphs: dict[tuple[type[nn.Module], str], Callable[..., States]] = {}
        """The functions that were compiled ahead of time, by the kind of block and the attention."""
        self._ready: set[str] = set()
        self.is_compiling = True
        """False after `disable`."""

    def __call__(self, block: nn.Module, *arguments: Any, attention: str = "") -> States:
        """Return `block(*arguments)`, but for the rounding. `attention` is the backend that is active.

        Raises:
            torch.OutOfMemoryError: there is too little memory, which is no reason to disable compiling.
        """
        failure = None
        if (graph := self._graphs.get((type(block), attention))) is not None:
            try:
                return graph(block, *map(_contiguous, arguments))
            except Exception as error:
                if is_out_of_memory(error):
                    raise torch.OutOfMemoryError(str(error)) from error
                logger.info("a kept graph is not used any longer: %s", error)
                del self._graphs[type(block), attention]
        if self.is_compiling:
            try:
                if self._compiled is None:
                    self._compiled = torch.compile(_call, backend=self._backend, fullgraph=True, dynamic=True)
                return self._compiled(block, *map(_contiguous, arguments))
            except Exception as error:  # a compiler may raise anything
                cause = getattr(error, "inner_exception", error)
                if is_out_of_memory(cause):
                    raise torch.OutOfMemoryError(str(cause)) from error
                failure = cause
        states = block(*arguments)
        if failure is not None:  # what also fails eagerly is not the compiler's fault
            reason = self.disable(f"{type(failure).__name__}: {failure}")
            if not (isinstance(failure, OSError) and is_limit(failure)):  # a full disk says nothing of it
                self._on_failure(reason)
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
            if self._saved is not None:
                states = [*map(_contiguous, arguments)]
                graph = self._saved.get(_call, block, states, attention)
                self._graphs |= {(type(block), attention): graph} if graph is not None else {}
            name, compiled = f"compiled {type(block).__name__}", partial(self, attention=attention)
            tolerance = getattr(block, COMPILED_TOLERANCE, TOLERANCE)
            if not agrees(name, partial(compiled, block, *arguments), block(*arguments), tolerance):
                self._on_failure(self.disable(f"{name} is wrong"))
        self._ready.add(attention)

    def disable(self, reason: str) -> str:
        """Call blocks eagerly from now on; returns the reason in one short line."""
        reason = reason.splitlines()[0][:300]
        if self.is_compiling:
            logger.info("blocks are not compiled: %s", reason)
            self._untold = reason
        self._compiled, self.is_compiling = None, False
        self._graphs.clear()
        return reason

    def take_failure(self) -> str | None:
        """Return the reason why compiling was disabled, only once; None if it was not."""
        reason, self._untold = self._untold, None
        return reason


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

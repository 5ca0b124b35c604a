"""The choice of the backend that computes the blocks' attention, and its replacement if it fails in a job.

PyTorch by itself takes the first backend that can, not the fastest (on Windows, one half as fast as cuDNN's).
xformers may be absent, fail to import, come without kernels or refuse the GPU. Failures are only logged.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch.nn.attention import SDPBackend

from ..kernels import agrees
from ..memory import is_out_of_memory

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

NATIVE = "native"
"""The name in diffusers for leaving the choice to PyTorch."""
CANDIDATES = {
    "_native_cudnn": SDPBackend.CUDNN_ATTENTION,
    "_native_flash": SDPBackend.FLASH_ATTENTION,
    "xformers": None,
    "_native_efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""The backends that are tried, the fastest first: names in diffusers and in PyTorch."""
SAGE = "sage"
"""The name of SageAttention (arXiv 2411.10958), a package that rounds to 8 bits and is used on request only.
`torch.compile` cannot trace it, so blocks with it are not compiled."""
TRIED_TOKENS = 1024
TOLERANCE = 0.02
"""The largest relative error of a backend that is used."""
SAGE_TOLERANCE = 0.1


def xformers_computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether xformers is installed and computes attention correctly on the device."""
    states = [torch.ones(1, 16, 1, 128, device=device, dtype=dtype)] * 3
    return agrees("xformers", lambda: [attend(states, "xformers")], states[:1], 1e-2)


class AttentionChooser:
    """Chooses the attention backend for one device; each candidate is tried once."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, compiles: bool = False, requested: str | None = None
    ) -> None:
        """
        Args:
            compiles: blocks are compiled, which they cannot be around xformers.
            requested: a backend that is used wherever it works.
        """
        self.requested = requested
        self._device, self._dtype = device, dtype
        self._usable = {"xformers": False} if compiles else {}

    def choose(self, heads: int, head_dim: int) -> str | None:
        """Return the name in diffusers of the backend to use, None for PyTorch's choice."""
        if self._device.type != "cuda":
            return None
        try:
            name = self._choose(heads, head_dim)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        logger.info("attention backend: %s", name)
        return None if name == NATIVE else name

    @torch.inference_mode()
    def _choose(self, heads: int, head_dim: int) -> str:
        generator = torch.Generator(self._device).manual_seed(0)
        size = (3, 1, TRIED_TOKENS, heads, head_dim)
        states = list(torch.randn(size, generator=generator, device=self._device, dtype=self._dtype))
        if self.requested is not None and self._works(self.requested, states, SAGE_TOLERANCE):
            return self.requested
        native = SDPBackend(torch._fused_sdp_choice(*(state.transpose(1, 2) for state in states)))
        for name, kernel in CANDIDATES.items():
            if kernel == native:  # under its name diffusers copies the tensors first
                break
            if self._works(name, states, TOLERANCE):
                return name
        return NATIVE

    def exclude(self, name: str) -> None:
        """Stop choosing a backend that failed in a job although it worked when it was tried."""
        self._usable[name] = False

    def _works(self, name: str, states: list[torch.Tensor], tolerance: float) -> bool:
        if name not in self._usable:
            expected = [attend(states, NATIVE)]
            self._usable[name] = agrees(name, lambda: [attend(states, name)], expected, tolerance)
        return self._usable[name]


def attend(states: list[torch.Tensor], backend: str) -> torch.Tensor:
    """Compute the attention of query, key and value `(1, tokens, heads, head_dim)`, as the blocks do."""
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    return dispatch_attention_fn(*states, backend=AttentionBackendName(backend))


class ActiveAttention:
    """A `with` block in which one backend computes all attention; the native one replaces it on failure.

    Set globally, because the streamed blocks belong to no model that could be configured.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.is_replaced = False
        """True when the native backend has replaced it."""
        self.failed = False
        """True when that helped."""
        self._exits = ExitStack()

    def __enter__(self) -> "ActiveAttention":
        self.guard(self._enter)  # what is missing or broken may raise anything
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def guard(self, work: Callable[[], _T]) -> _T:
        """Return what `work` does; if it fails, but not for lack of memory, again with the native backend."""
        try:
            return work()
        except Exception as error:
            if self.backend == NATIVE or is_out_of_memory(error):
                raise
            self.replace(str(error))
        result = work()
        self.failed = True
        return result

    def replace(self, reason: str) -> None:
        """Use the native attention from now on."""
        logger.warning("attention backend %s is not used any longer: %s", self.backend, reason)
        self._exits.close()
        self.backend, self.is_replaced = NATIVE, True
        self._enter()

    def _enter(self) -> None:
        from diffusers.models.attention_dispatch import attention_backend

        self._exits.enter_context(attention_backend(self.backend))

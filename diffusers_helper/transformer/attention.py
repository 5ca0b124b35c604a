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
    "_native_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "xformers": None,
}
"""The backends that are tried, the fastest first: names in diffusers and in PyTorch. xformers calls PyTorch's
own kernels where they are, so that it comes after them."""
TRIED_TOKENS = 1024
TOLERANCE = 0.02
"""The largest relative error of a backend that is used."""


class AttentionChooser:
    """Chooses the attention backend for one device; each candidate is tried once."""

    def __init__(self, device: torch.device, dtype: torch.dtype, compiles: bool = False) -> None:
        """
        Args:
            compiles: blocks are compiled, which they cannot be around xformers.
        """
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

    def kernel(self, heads: int, head_dim: int) -> SDPBackend | None:
        """Return the kernel of PyTorch's that computes what was chosen; None for that of xformers."""
        name = self.choose(heads, head_dim)
        return self._native_kernel(self._random_states(heads, head_dim)) if name is None else CANDIDATES[name]

    @torch.inference_mode()
    def _choose(self, heads: int, head_dim: int) -> str:
        states = self._random_states(heads, head_dim)
        native = self._native_kernel(states)
        for name, kernel in CANDIDATES.items():
            if kernel == native:  # under its name diffusers copies the tensors first
                logger.info("%s is what PyTorch takes by itself", name)
                break
            if self._works(name, states):
                return name
        return NATIVE

    def _random_states(self, heads: int, head_dim: int) -> list[torch.Tensor]:
        generator = torch.Generator(self._device).manual_seed(0)
        size = (3, 1, TRIED_TOKENS, heads, head_dim)
        return list(torch.randn(size, generator=generator, device=self._device, dtype=self._dtype))

    def _native_kernel(self, states: list[torch.Tensor]) -> SDPBackend:
        """Return the kernel that PyTorch takes by itself."""
        query, key, value = (state.transpose(1, 2) for state in states)
        return SDPBackend(torch._fused_sdp_choice(query, key, value))

    def exclude(self, name: str) -> None:
        """Stop choosing a backend that failed in a job although it worked when it was tried."""
        self._usable[name] = False

    def _works(self, name: str, states: list[torch.Tensor]) -> bool:
        if name not in self._usable:
            expected = [attend(states, NATIVE)]
            self._usable[name] = agrees(name, lambda: [attend(states, name)], expected, TOLERANCE)
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

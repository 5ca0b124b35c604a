"""Attention with int8 queries and keys, a part of the 8-bit way: SageAttention 1 (arXiv 2410.02367).

Its package is written in Triton. To a compiler it is one operation, which stays as it is. It is taken where
it computes the same as the exact attention that the blocks have otherwise, and is faster.
"""

import logging
from collections.abc import Callable
from functools import cache, partial

import torch

from ..kernels import agrees
from ..memory import is_out_of_memory
from ..transformer.attention import attend

logger = logging.getLogger(__name__)

TOLERANCE = 0.03
"""The largest relative error of int8 attention (measured on random numbers: 0.0135)."""
TRIED_TOKENS = 8192
"""The tokens of a trial: fewer than a section has, and enough for the difference in speed to show."""
TRIED_CALLS = 3


def int8_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute the attention of `(1, tokens, heads, head_dim)`. Raises ImportError without the package."""
    return _operation(query, key, value)


@torch.library.custom_op("endframe_ichi::int8_attention", mutates_args=())
def _operation(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    from sageattention import sageattn

    return sageattn(query, key.clone(), value, tensor_layout="NHD")  # it changes the keys


@_operation.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return torch.empty_like(query)


@cache
def is_faster(device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, exact: str) -> bool:
    """Return whether int8 attention works on a device, and is faster than an exact backend; tried once."""
    try:
        return _is_faster(device, dtype, heads, head_dim, exact)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False


@torch.inference_mode()
def _is_faster(device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, exact: str) -> bool:
    generator = torch.Generator(device).manual_seed(0)
    size = (3, 1, TRIED_TOKENS, heads, head_dim)
    states = list(torch.randn(size, generator=generator, device=device, dtype=dtype))
    ours, theirs = partial(int8_attention, *states), partial(attend, states, exact)
    if not agrees("int8 attention", lambda: [ours()], [theirs()], TOLERANCE):
        return False
    fast, slow = _time(ours), _time(theirs)
    logger.info("int8 attention takes %.2f ms, %s attention %.2f ms", fast, exact, slow)
    return fast < slow


def _time(work: Callable[[], object]) -> float:
    """Return the milliseconds of some calls on the GPU, which have been made before."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(TRIED_CALLS):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)

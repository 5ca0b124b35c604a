"""Which kernel computes attention: PyTorch's own, or xformers where PyTorch lacks a fast one.

xformers is a matter of luck: built for one version of PyTorch, it may be absent, fail to import, import
without its kernels, or refuse the card. Whatever it does, the app works, and says nothing.
"""

import importlib.util
import logging
import sys
from typing import Any

import torch

logger = logging.getLogger(__name__)


def hide_broken_xformers() -> None:
    """Make an xformers that cannot be imported look as if it were not installed.

    diffusers imports it wherever it is installed, and would fail together with it. Call this before
    diffusers is imported.
    """
    logging.getLogger("xformers").setLevel(logging.ERROR)
    if sys.modules.get("xformers", True) is None or importlib.util.find_spec("xformers") is None:
        return
    try:
        import xformers.ops  # noqa: F401
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything)
        logger.info("xformers does not load: %s", error)
        modules: dict[str, Any] = sys.modules
        modules["xformers"] = modules["xformers.ops"] = None


def choose_attention(device: torch.device, dtype: torch.dtype) -> str | None:
    """The name of diffusers' attention backend to use, None for PyTorch's own.

    xformers is only taken where this PyTorch has no flash attention (some Windows builds), and only
    after it has computed something on the card.
    """
    if device.type != "cuda" or torch.backends.cuda.is_flash_attention_available():
        return None
    return "xformers" if _xformers_computes(device, dtype) else None


def _xformers_computes(device: torch.device, dtype: torch.dtype) -> bool:
    try:
        from xformers.ops import memory_efficient_attention

        query = torch.ones(1, 16, 1, 128, device=device, dtype=dtype)
        result = memory_efficient_attention(query, query, query)
        return bool(torch.allclose(result, query, atol=1e-2))
    except (ImportError, NotImplementedError, RuntimeError, OSError, AttributeError) as error:
        logger.info("xformers cannot be used: %s", error)
        return False

"""PyTorch: which build is installed, without importing it, and what it says itself, in a process of its own.

A process of its own, because a broken PyTorch can take its process down, and a sound one takes seconds and
memory that the app needs only for the first video. As a program (`python -m`), this file is that process.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers_helper.errors import EngineError
from diffusers_helper.limits import BFLOAT16_CAPABILITY

from ..support.failures import as_engine_error
from .card import NO_WINDOW
from .facts import AttentionKernel, CardFacts, TorchAnswer, TorchFacts

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 180
"""Seconds: on a slow disk the first import of PyTorch takes a minute."""
MAX_REASON = 300


def find_torch() -> TorchFacts:
    """The version and CUDA of the PyTorch that is installed, from its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchFacts(version=None)
    return parse_build((Path(spec.origin).parent / "version.py").read_text("utf-8"))


def parse_build(text: str) -> TorchFacts:
    """The facts in PyTorch's `version.py`."""
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*= '(\d+)\.(\d+)", text, re.MULTILINE)
    return TorchFacts(
        version=version[1] if version else "?", cuda=(int(cuda[1]), int(cuda[2])) if cuda else None
    )


def ask_torch(command: list[str] | None = None) -> TorchAnswer:
    """Let PyTorch try the card. Takes seconds, at most PATIENCE; whatever happens there is an answer."""
    command = command or [sys.executable, "-m", __name__]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            creationflags=NO_WINDOW,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return TorchAnswer(failure=_in_short(error))
    try:
        return parse_answer(json.loads(done.stdout.decode("utf-8").splitlines()[-1]))
    except (ValueError, LookupError, TypeError, AttributeError):  # it crashed before it could answer
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return TorchAnswer(failure=" ".join([f"exit status {done.returncode}", *last])[:MAX_REASON])


def parse_answer(answer: dict[str, Any]) -> TorchAnswer:
    """The answer as it came over from the process."""
    card, kernels, error = answer.get("card"), answer.get("kernels"), answer.get("error")
    return TorchAnswer(
        failure=answer.get("failure"),
        card=CardFacts(**(card | {"capability": tuple(card["capability"])})) if card else None,
        blindness=answer.get("blindness"),
        kernels=tuple(kernels) if kernels else None,
        error=EngineError(error["code"], **error["values"]) if error else None,
        attention=answer.get("attention"),
        xformers_broken=bool(answer.get("xformers_broken")),
    )


def tell() -> dict[str, Any]:
    """What PyTorch says, as JSON can carry it. Imports it: for a process of its own."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything)
        return {"failure": _in_short(error)}
    has_xformers = importlib.util.find_spec("xformers") is not None
    answer = _try_engine()  # hides an xformers that is broken
    return {
        **answer,
        **_card_facts(),
        "kernels": torch.cuda.get_arch_list(),
        "xformers_broken": has_xformers and sys.modules.get("xformers", True) is None,
    }


def _try_engine() -> dict[str, Any]:
    """Choose the device as a job does, which computes something on the card."""
    from diffusers_helper.device import choose_compute

    try:
        compute = choose_compute("auto")
        on_card = compute.device.type == "cuda"
        return {"attention": _attention(compute.device, compute.transformer) if on_card else None}
    except Exception as caught:  # noqa: BLE001  (a driver in disorder raises what it likes)
        error = as_engine_error(caught)
        return {"error": {"code": error.code, "values": error.values}}


def _card_facts() -> dict[str, Any]:
    import torch

    try:
        torch.cuda.init()
        number = torch.cuda.current_device()
        free, total = torch.cuda.mem_get_info(number)
    except Exception as error:  # noqa: BLE001  (no CUDA in it, no driver, no card: its own words say which)
        return {"card": None, "blindness": _in_short(error)}
    card = {
        "name": torch.cuda.get_device_name(number),
        "capability": torch.cuda.get_device_capability(number),
        "memory": total,
        "free": free,
    }
    return {"card": card}


def _attention(device: "torch.device", dtype: "torch.dtype") -> AttentionKernel:
    import torch

    from diffusers_helper.transformer.attention import xformers_computes

    has_flash = torch.backends.cuda.is_flash_attention_available()
    if not has_flash and xformers_computes(device, dtype):
        return "xformers"
    is_new = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return "flash" if has_flash and is_new else "plain"  # before RTX 30, PyTorch has its other kernels


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(tell()) + "\n")

"""PyTorch: which build is installed, without importing it, and its own report from a separate process.

A broken PyTorch can take its process down, and a sound one takes seconds and memory that the app needs only
for the first video. As a program (`python -m`), this file is that process.
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
from scripts.torch_build import Gpu

from ..support.failures import MAX_REASON, as_engine_error, shorten
from .facts import AttentionKernel, TorchFacts, TorchReport

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = 180
"""Seconds: on a slow disk, the first import of PyTorch takes a minute."""


def find_torch() -> TorchFacts:
    """Find the version and CUDA of the installed PyTorch in its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchFacts(version=None)
    return parse_build((Path(spec.origin).parent / "version.py").read_text("utf-8"))


def parse_build(text: str) -> TorchFacts:
    """Parse PyTorch's `version.py`."""
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*= '(\d+)\.(\d+)", text, re.MULTILINE)
    return TorchFacts(version[1] if version else "?", (int(cuda[1]), int(cuda[2])) if cuda else None)


def probe_torch(command: list[str] | None = None) -> TorchReport:
    """Let PyTorch compute on the GPU in a process of its own; takes at most TIMEOUT. Never raises."""
    try:
        done = subprocess.run(
            command or [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return TorchReport(failure=shorten(error))
    try:
        return parse_report(json.loads(done.stdout.decode("utf-8").splitlines()[-1]))
    except (ValueError, LookupError, TypeError, AttributeError):  # it crashed before it could report
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return TorchReport(failure=" ".join([f"exit status {done.returncode}", *last])[:MAX_REASON])


def parse_report(report: dict[str, Any]) -> TorchReport:
    """Turn the separate process's JSON into a report. Raises TypeError or LookupError if it is none."""
    gpu, error = report.get("gpu"), report.get("error")
    objects = {
        "gpu": Gpu(**gpu | {"driver": None, "capability": tuple(gpu["capability"])}) if gpu else None,
        "error": EngineError(error["code"], **error["values"]) if error else None,
    }
    return TorchReport(**report | objects)


def make_report() -> dict[str, Any]:
    """Import PyTorch and report on it, as JSON can carry it. For a process of its own."""
    try:
        importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything)
        return {"failure": shorten(error)}
    has_xformers = importlib.util.find_spec("xformers") is not None
    report = _try_engine()  # hides an xformers that is broken
    is_broken = has_xformers and sys.modules.get("xformers", True) is None
    return {**report, **_describe_gpu(), "xformers_broken": is_broken}


def _try_engine() -> dict[str, Any]:
    """Choose the device as a job does, which computes something on the GPU."""
    from diffusers_helper.device import choose_compute

    try:
        compute = choose_compute("auto")
        on_gpu = compute.device.type == "cuda"
        return {"attention": _attention(compute.device, compute.transformer) if on_gpu else None}
    except Exception as caught:  # noqa: BLE001  (a broken driver may raise anything)
        error = as_engine_error(caught)
        return {"error": {"code": error.code, "values": error.values}}


def _describe_gpu() -> dict[str, Any]:
    import torch

    try:
        torch.cuda.init()
        device = torch.cuda.current_device()
        free, total = torch.cuda.mem_get_info(device)
    except Exception as error:  # noqa: BLE001  (no CUDA in it, no driver, no GPU: the message names it)
        return {"no_gpu_reason": shorten(error)}
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    return {"gpu": {"name": name, "capability": capability, "memory": total, "free": free}}


def _attention(device: "torch.device", dtype: "torch.dtype") -> AttentionKernel:
    import torch

    from diffusers_helper.engine import xformers_computes

    has_flash = torch.backends.cuda.is_flash_attention_available()
    if not has_flash and xformers_computes(device, dtype):
        return "xformers"
    is_new = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return "flash" if has_flash and is_new else "plain"  # before RTX 30, PyTorch has its other kernels


if __name__ == "__main__":
    sys.stdout.write(json.dumps(make_report()) + "\n")

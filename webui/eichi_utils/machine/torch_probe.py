"""PyTorch: which build is installed, without importing it, and its own report from a separate process.

A broken PyTorch can take its process down, and a sound one takes seconds and memory that the app needs only
for the first video. As a program (`python -m`), this file is that process.
"""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffusers_helper.errors import EngineError
from diffusers_helper.limits import BFLOAT16_CAPABILITY
from scripts.torch_build import Gpu

from ..engine_options import ROOT
from ..support.failures import MAX_REASON, as_engine_error, shorten

if TYPE_CHECKING:
    import torch

TIMEOUT = 180
"""Seconds: on a slow disk, the first import of PyTorch takes a minute."""
AttentionKernel = Literal["flash", "xformers", "plain"]


@dataclass(frozen=True)
class TorchFacts:
    """The installed PyTorch, and where it was probed, its own report, made in a process of its own.

    Attributes:
        version: None if it isn't installed.
        cuda: None if its build is for the CPU.
        failure: the reason why there is no report: PyTorch does not load, or does not end.
        gpu: the GPU that it computes on; without one, `no_gpu_reason`.
        error: the reason why the engine would refuse the GPU.
    """

    version: str | None
    cuda: tuple[int, int] | None = None
    failure: str | None = None
    gpu: Gpu | None = None
    no_gpu_reason: str | None = None
    error: EngineError | None = None
    attention: AttentionKernel | None = None
    xformers_broken: bool = False


def find_torch() -> TorchFacts:
    """Find the version and CUDA of the installed PyTorch in its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchFacts(version=None)
    values = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    if values["cuda"] is None:
        return TorchFacts(values["__version__"])
    major, minor, *_ = map(int, values["cuda"].split("."))
    return TorchFacts(values["__version__"], (major, minor))


def probe_torch(facts: TorchFacts, command: list[str] | None = None) -> TorchFacts:
    """Add PyTorch's report, which computes on the GPU; takes at most TIMEOUT. Never raises."""
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
        return replace(facts, failure=shorten(error))
    try:
        return add_report(facts, json.loads(done.stdout.decode("utf-8").splitlines()[-1]))
    except (ValueError, LookupError, TypeError, AttributeError):  # it crashed before it could report
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return replace(facts, failure=" ".join([f"exit status {done.returncode}", *last])[:MAX_REASON])


def add_report(facts: TorchFacts, report: dict[str, Any]) -> TorchFacts:
    """Add the separate process's JSON. Raises TypeError, LookupError or AttributeError if it is none."""
    gpu, error = report.get("gpu"), report.get("error")
    objects = {
        "gpu": Gpu(**gpu | {"driver": None, "capability": tuple(gpu["capability"])}) if gpu else None,
        "error": EngineError(error["code"], **error["values"]) if error else None,
    }
    return replace(facts, **report | objects)


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

"""PyTorch: which build is installed, without importing it, and its own report from a separate process.

A broken PyTorch can take its process down, and a sound one takes seconds and memory that the app needs only
for the first video. As a program (`python -m`), this file is that process.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import runpy
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from diffusers_helper.errors import EngineError
from scripts.torch_build import Gpu, Version, find_dlls, run_quietly

from ..engine_options import ROOT
from ..support.failures import MAX_REASON, as_engine_error, shorten

logger = logging.getLogger(__name__)

TIMEOUT = 180
"""Seconds: on a slow disk, the first import of PyTorch takes a minute; kernels are compiled, too."""


@dataclass(frozen=True)
class TorchFacts:
    """The installed PyTorch, and where it was probed, its own report, made in a process of its own.

    Attributes:
        version: None if it isn't installed.
        cuda: None if its build is for the CPU.
        triton: the version of Triton beside it; None if there is none.
        failure: the reason why there is no report: PyTorch does not load, or does not end.
        gpu: the GPU that it computes on; without one, `no_gpu_reason`.
        error: the reason why the engine would refuse the GPU.
        lacks_kernels: whether CUDA found in it nothing built for the GPU.
        attention, product, int8_attention: the kernels that jobs use on the GPU, by the names that
            `chosen_kernels` has for them; None where they could not be tried.
    """

    version: str | None
    cuda: Version | None = None
    triton: str | None = None
    failure: str | None = None
    gpu: Gpu | None = None
    no_gpu_reason: str | None = None
    error: EngineError | None = None
    lacks_kernels: bool = False
    attention: str | None = None
    product: str | None = None
    int8_attention: bool | None = None


def find_torch() -> TorchFacts:
    """Find the version and CUDA of the installed PyTorch in its files."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchFacts(version=None)
    values = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    version, cuda = values["__version__"], values["cuda"]
    return TorchFacts(version, tuple(map(int, cuda.split(".")[:2])) if cuda else None, _find_triton())


def _find_triton() -> str | None:
    for package in ("triton", "triton-windows"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None


def probe_torch(facts: TorchFacts, command: list[str] | None = None) -> TorchFacts:
    """Add PyTorch's report, which computes on the GPU; takes at most TIMEOUT. Never raises."""
    try:
        program, environment = [sys.executable, "-m", __name__], os.environ | {"PYTHONIOENCODING": "utf-8"}
        done = run_quietly(command or program, TIMEOUT, cwd=ROOT, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        return replace(facts, failure=shorten(error))
    try:
        report = json.loads(done.stdout.splitlines()[-1])
        if gpu := report.get("gpu"):
            report["gpu"] = Gpu(**gpu | {"driver": None, "capability": tuple(gpu["capability"])})
        if refusal := report.get("error"):
            report["error"] = EngineError(refusal["code"], **refusal["values"])
        return replace(facts, **report)
    except (ValueError, LookupError, TypeError, AttributeError):  # it crashed before it could report
        last = done.stderr.strip().splitlines()[-1:]
        return replace(facts, failure=" ".join([f"exit status {done.returncode}", *last])[:MAX_REASON])


def write_report() -> None:
    """Write a report as a line of JSON, then one with the chosen kernels: trying them may end the process."""
    report = make_report()
    _write(report)
    if "gpu" in report and "error" not in report:
        _write(report | _try_kernels())


def _write(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def make_report() -> dict[str, Any]:
    """Import PyTorch and report on it, as JSON can carry it. For a process of its own."""
    find_dlls()
    try:
        importlib.import_module("torch")
    except Exception as error:  # noqa: BLE001  (a broken package may raise anything)
        return {"failure": shorten(error)}
    return _try_engine() | _describe_gpu()


def _try_engine() -> dict[str, Any]:
    """Choose the device as a job does, which computes something on the GPU."""
    from diffusers_helper.device import choose_compute

    try:
        choose_compute("auto")
        return {}
    except Exception as caught:  # noqa: BLE001  (a broken driver may raise anything)
        error = as_engine_error(caught)
        lacks_kernels = "no kernel image" in str(caught.__cause__)
        return {"error": {"code": error.code, "values": error.values}, "lacks_kernels": lacks_kernels}


def _describe_gpu() -> dict[str, Any]:
    import torch

    try:
        torch.cuda.init()
        free, total = torch.cuda.mem_get_info()
    except Exception as error:  # noqa: BLE001  (no CUDA in it, no driver, no GPU: the message names it)
        return {"no_gpu_reason": shorten(error)}
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return {"gpu": {"name": name, "capability": capability, "memory": total, "free": free}}


def _try_kernels() -> dict[str, Any]:
    from diffusers_helper.chosen_kernels import choose_kernels
    from diffusers_helper.device import choose_compute

    try:
        return asdict(choose_kernels(choose_compute("auto")))
    except Exception:  # a full GPU, above all
        logger.info("the kernels could not be tried", exc_info=True)
        return {}


if __name__ == "__main__":
    write_report()

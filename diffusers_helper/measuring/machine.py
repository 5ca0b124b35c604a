"""The facts about the device, its driver, the libraries and the memory, as the system states them."""

import importlib.metadata
import os
import platform
from typing import Any

import torch

from ..device import Compute
from ..limits import GIB
from ..ram import peak_process_bytes, read_ram

PACKAGES = (
    *("torch", "triton", "triton-windows", "sageattention", "xformers", "diffusers", "transformers"),
    *("safetensors", "numpy", "pillow", "av", "gradio"),
)


def list_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the libraries, CUDA's of PyTorch among them."""
    versions = {"Python": platform.python_version(), "system": f"{platform.platform()}, {platform.machine()}"}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return versions | {"CUDA of torch": str(torch.version.cuda), "cuDNN": str(cudnn)}


def describe_device(compute: Compute) -> dict[str, Any]:
    """Return the device that computes and its number formats."""
    formats = {
        "transformer in": _plain(compute.transformer),
        "between its layers": _plain(compute.activations),
    }
    formats |= {"other models in": _plain(compute.encoders)}
    if compute.device.type != "cuda":
        name = platform.processor() or platform.machine()
        return {
            "device": f"CPU {name}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        } | formats
    properties = torch.cuda.get_device_properties(compute.device)
    free, total = torch.cuda.mem_get_info(compute.device)
    limit = compute.memory_limit
    return {
        "device": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "CUDA of the driver": getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")(),
        "VRAM GiB": round(total / GIB, 2),
        "VRAM free GiB": round(free / GIB, 2),
        "VRAM limit GiB": "none" if limit is None else round(limit / GIB, 2),
    } | formats


def reset_vram_peak(device: torch.device) -> None:
    """Begin to measure the VRAM in use anew; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def vram_peak(device: torch.device) -> dict[str, float]:
    """Return the most VRAM in use since it was measured anew; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    used, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return {"VRAM used at most GiB": round(used / GIB, 2), "VRAM held at most GiB": round(held / GIB, 2)}


def measure_memory() -> dict[str, float]:
    """Return the RAM of the machine, and the most that this process has had of it."""
    ram = read_ram()
    sizes = {"RAM": ram.total, "RAM free": ram.available, "RAM that can be promised": ram.committable}
    sizes |= {"process at most": peak_process_bytes()}
    if ram.page_file is not None:
        sizes["page file"] = ram.page_file
    return {f"{name} GiB": round(size / GIB, 2) for name, size in sizes.items()}


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

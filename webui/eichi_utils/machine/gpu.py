"""The NVIDIA GPU of this computer, as its driver and the system report it. Starts no CUDA."""

import ctypes
import sys
from pathlib import Path

from scripts.torch_build import Gpu, query_gpus

_NVIDIA_VENDOR = "10de"


def find_gpu() -> Gpu | None:
    """Find the GPU that CUDA would choose first; None without a GPU or a driver that works."""
    return max(query_gpus() or (), key=lambda gpu: gpu.rank, default=None)


def has_nvidia_hardware() -> bool:
    """Return whether an NVIDIA GPU is plugged in, with or without its driver."""
    if sys.platform == "win32":
        return any(f"VEN_{_NVIDIA_VENDOR.upper()}" in name.upper() for name in _windows_adapters())
    return any(_is_nvidia_display(device) for device in Path("/sys/bus/pci/devices").glob("*"))


def _is_nvidia_display(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text("ascii").strip()
        return vendor == f"0x{_NVIDIA_VENDOR}" and (device / "class").read_text("ascii").startswith("0x03")
    except (OSError, ValueError):
        return False


class _DisplayDevice(ctypes.Structure):
    """DISPLAY_DEVICEW of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("name", ctypes.c_wchar * 32),
        ("description", ctypes.c_wchar * 128),
        ("state", ctypes.c_uint32),
        ("identity", ctypes.c_wchar * 128),
        ("key", ctypes.c_wchar * 128),
    )


def _windows_adapters() -> list[str]:
    """Return the identities of the display adapters, like `PCI\\VEN_10DE&DEV_2504...`."""
    found: list[str] = []
    device = _DisplayDevice(size=ctypes.sizeof(_DisplayDevice))
    enumerate_devices = ctypes.windll.user32.EnumDisplayDevicesW  # type: ignore[attr-defined]
    while len(found) < 64 and enumerate_devices(None, len(found), ctypes.byref(device), 0):
        found.append(device.identity)
    return found

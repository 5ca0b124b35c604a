"""The NVIDIA GPU of this computer, as its driver and the system report it. Starts no CUDA."""

import ctypes
import struct
import sys
from pathlib import Path

from scripts.torch_build import Gpu, query_gpus

DEVICE_BYTES, MAX_DEVICES = 840, 64
"""The bytes of DISPLAY_DEVICEW of the Windows API, which begins with them; the most adapters to look at."""


def find_gpu() -> Gpu | None:
    """Find the GPU that CUDA would choose first; None without a GPU or a driver that works."""
    return max(query_gpus() or (), key=lambda gpu: gpu.rank, default=None)


def has_nvidia_hardware() -> bool:
    """Return whether an NVIDIA GPU (PCI vendor 10de) is plugged in, with or without its driver."""
    if sys.platform == "win32":
        return _windows_has_nvidia()
    return any(_is_nvidia_display(device) for device in Path("/sys/bus/pci/devices").glob("*"))


def _is_nvidia_display(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text("ascii").strip()
        return vendor == "0x10de" and (device / "class").read_text("ascii").startswith("0x03")
    except (OSError, ValueError):
        return False


def _windows_has_nvidia() -> bool:
    """Search the display adapters for an identity like `PCI\\VEN_10DE&DEV_2504...`."""
    device = ctypes.create_string_buffer(struct.pack("I", DEVICE_BYTES), DEVICE_BYTES)
    list_device = ctypes.windll.user32.EnumDisplayDevicesW  # type: ignore[attr-defined]
    for number in range(MAX_DEVICES):
        if not list_device(None, number, device, 0):
            return False
        if "VEN_10DE".encode("utf-16-le") in device.raw.upper():
            return True
    return False

"""The search for an NVIDIA GPU (PCI vendor 10de) that is plugged in, with or without its driver."""

import ctypes
import re
import struct
import sys
from pathlib import Path

DEVICE_BYTES, MAX_DEVICES = 840, 64
"""The bytes of DISPLAY_DEVICEW of the Windows API, which begins with them; the most adapters to look at."""


def has_nvidia_hardware(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Return whether there is such a display device; Linux lists them all in the folder `devices`."""
    if sys.platform == "win32":
        return _windows_has_nvidia()
    identities = (path.read_text("ascii") for path in devices.glob("*/modalias"))
    return any(re.match("pci:v000010DE.*bc03", identity) for identity in identities)


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

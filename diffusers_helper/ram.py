"""The machine's RAM, and the page file or swap behind it. Imports no torch."""

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class SystemMemory:
    """Memory of the machine, or of the container, in bytes.

    Attributes:
        available: free RAM, with what the file cache would give back.
        committable: bytes that programs may still allocate: commit limit minus committed (Windows), free RAM
            and swap (elsewhere).
        page_file: size of Windows' page file; None on other systems.
    """

    total: int
    available: int
    committable: int
    page_file: int | None = None


def read_ram(cgroup: Path = Path("/sys/fs/cgroup")) -> SystemMemory:
    """Read the memory's size and what is free of it. Raises OSError."""
    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX, which begins with its size
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
            raise OSError("GlobalMemoryStatusEx")
        # its `ullAvailPageFile` is not in psutil
        return SystemMemory(ram.total, ram.available, status[4], max(swap.total, 0))
    try:  # a container's limit, which psutil does not know; its file cache counts as free
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
        lines = (cgroup / "memory.stat").read_text("ascii").splitlines()
        cached = int(dict(line.split() for line in lines)["file"])
    except (OSError, ValueError, KeyError):  # no container, or "max"
        return SystemMemory(ram.total, ram.available, ram.available + swap.free)
    available = min(ram.available, limit - used + cached)
    return SystemMemory(min(ram.total, limit), available, available)

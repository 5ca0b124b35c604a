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
    ram = psutil.virtual_memory()
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX, which begins with its size
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
            raise OSError("GlobalMemoryStatusEx")
        # Its `ullTotalPageFile`, the commit limit, and `ullAvailPageFile`. psutil does not know the second,
        # and for a page file asks performance counters, which some computers have switched off.
        return SystemMemory(ram.total, ram.available, status[4], max(status[3] - ram.total, 0))
    swap = psutil.swap_memory()
    try:  # a container's limit, which psutil does not know; its file cache counts as free
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
        lines = (cgroup / "memory.stat").read_text("ascii").splitlines()
        cached = int(dict(line.split() for line in lines)["file"])
    except (OSError, ValueError, KeyError):  # no container, or "max"
        return SystemMemory(ram.total, ram.available, ram.available + swap.free)
    available = min(ram.available, limit - used + cached)
    return SystemMemory(min(ram.total, limit), available, available)


def peak_process_bytes() -> int:
    """Return the most RAM that this process has had, in bytes; it may share some with the file cache."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

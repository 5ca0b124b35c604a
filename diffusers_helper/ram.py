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
        return SystemMemory(ram.total, ram.available, _commit_available(), max(swap.total, 0))
    limit = _container_limit(cgroup)
    if limit is None:
        return SystemMemory(ram.total, ram.available, ram.available + swap.free)
    available = min(ram.available, limit[1])
    return SystemMemory(min(ram.total, limit[0]), available, available)


def _container_limit(cgroup: Path) -> tuple[int, int] | None:
    """Return the container's limit and what is free of it, file cache included; psutil knows neither."""
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
        lines = (line.split() for line in (cgroup / "memory.stat").read_text("ascii").splitlines())
        cached = next(int(line[1]) for line in lines if line[0] == "file")
        return limit, limit - used + cached
    except (OSError, ValueError, StopIteration):  # no container, or "max"
        return None


def _commit_available() -> int:
    """Read `ullAvailPageFile` of Windows' MEMORYSTATUSEX, which psutil does not expose."""
    status = (ctypes.c_uint64 * 8)(64)  # the structure begins with its size
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(status):  # type: ignore[attr-defined]
        raise OSError("GlobalMemoryStatusEx")
    return status[4]

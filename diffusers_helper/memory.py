"""How much memory the machine has and how much of it is free, from the system itself."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class SystemMemory:
    """RAM in bytes; `available` counts what the file cache would give back."""

    total: int
    available: int


def read_ram() -> SystemMemory:
    """Ask the system."""
    if sys.platform == "win32":
        return _read_windows()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = (line.split() for line in meminfo.read_text("ascii").splitlines())
        values = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines}
        limit, room = _container_limit()
        return SystemMemory(min(values["MemTotal"], limit), min(values["MemAvailable"], room))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return SystemMemory(total, total // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own class, or a library's word for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("ALLOC_FAILED", "CUDA error: out of memory", "DefaultCPUAllocator")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def free_vram(device: torch.device, limit: int | None) -> int:
    """Bytes that this process may still take on a card: what is free, and what its allocator holds unused.

    `limit` is the most that the process may use in all. For the CPU it is the RAM that is free.
    """
    if device.type != "cuda":
        free = read_ram().available
        return free if limit is None else min(free, limit)
    free, _total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return free if limit is None else min(free, limit - allocated)


def empty_cache(device: torch.device) -> None:
    """Give what a card's allocator holds unused back to the card. Waits for it; does nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _container_limit() -> tuple[int, int]:
    """What a container's limit is and what it leaves, the file cache counted as free; huge without one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text("ascii"))
        used = int((folder / "memory.current").read_text("ascii"))
        lines = (line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        cached = next(int(line[1]) for line in lines if line[0] == "file")
        return limit, limit - used + cached
    except (OSError, ValueError, StopIteration):  # no container, or "max"
        return 2**62, 2**62


def _read_windows() -> SystemMemory:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            ("rest", ctypes.c_ulonglong * 5),
        )

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return SystemMemory(status.total, status.available)

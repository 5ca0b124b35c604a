"""RAM, and what stands behind it: the page file on Windows, swap on Linux. Needs no torch."""

import ctypes
import os
import sys
from pathlib import Path

from .machine.facts import MemoryFacts

_NO_LIMIT = 2**62


class MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API; `commit` is RAM and page file together."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("commit_limit", ctypes.c_uint64),
        ("commit_available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 3),
    )


def read_memory() -> MemoryFacts:
    """Ask the system. May raise whatever the system raises."""
    if sys.platform == "win32":
        status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
        kernel = ctypes.windll.kernel32
        if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise OSError("GlobalMemoryStatusEx")
        return windows_memory(status)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return linux_memory(meminfo.read_text("ascii"), Path("/sys/fs/cgroup"))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MemoryFacts(total, available=total // 2, promised=total)


def windows_memory(status: MemoryStatus) -> MemoryFacts:
    """Windows promises no byte that it could not keep: RAM and page file together are the limit."""
    page_file = max(status.commit_limit - status.total, 0)
    return MemoryFacts(status.total, status.available, status.commit_available, page_file)


def linux_memory(meminfo: str, cgroup: Path) -> MemoryFacts:
    """From the text of `/proc/meminfo`, and the limit of the container if this is one."""
    lines = (line.split() for line in meminfo.splitlines())
    values = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1}
    limit, room = _container_limit(cgroup)
    available = min(values["MemAvailable"], room)
    swap = values.get("SwapFree", 0) if room == _NO_LIMIT else 0
    return MemoryFacts(min(values["MemTotal"], limit), available, available + swap)


def _container_limit(cgroup: Path) -> tuple[int, int]:
    """What the limit is and what it leaves, the file cache counted as free."""
    try:
        limit = int((cgroup / "memory.max").read_text("ascii"))
        used = int((cgroup / "memory.current").read_text("ascii"))
        lines = (line.split() for line in (cgroup / "memory.stat").read_text("ascii").splitlines())
        cached = next(int(line[1]) for line in lines if line[0] == "file")
        return limit, limit - used + cached
    except (OSError, ValueError, StopIteration):  # no container, or "max"
        return _NO_LIMIT, _NO_LIMIT

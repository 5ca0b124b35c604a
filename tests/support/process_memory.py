"""How much memory a process has, where the system tells (Linux)."""

from pathlib import Path

import pytest


def resident(pid: int) -> int:
    """Bytes of memory that the process has now."""
    return _told(pid, "VmRSS")


def highest(pid: int) -> int:
    """The most that it ever had."""
    return _told(pid, "VmHWM")


def _told(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell the memory of a process")
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

"""The memory of a process, where the system reports it (Linux)."""

from pathlib import Path

import pytest


def resident(pid: int) -> int:
    """Returns the bytes of memory that the process has now."""
    return _status(pid, "VmRSS")


def highest(pid: int) -> int:
    """Returns the most bytes that it ever had."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("this system does not report the memory of a process")
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

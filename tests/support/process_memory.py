"""The memory of a process, where the system reports it (Linux)."""

import time
from pathlib import Path

import pytest

from tests.support.app import wait_until

MB = 1000 * 1000


def resident(pid: int) -> int:
    """Returns the bytes of memory that the process has now."""
    return _status(pid, "VmRSS")


def highest(pid: int) -> int:
    """Returns the most bytes that it ever had."""
    return _status(pid, "VmHWM")


def settled(pid: int) -> int:
    """Returns the bytes that an app has once PyTorch is imported, which its first picture begins."""
    sizes = [resident(pid)]
    maps = Path(f"/proc/{pid}/maps")
    wait_until(lambda: "libtorch_cpu" in maps.read_text("utf-8"), "PyTorch is imported")

    def stands_still() -> bool:
        time.sleep(0.5)
        sizes.append(resident(pid))
        return len(sizes) > 4 and max(sizes[-5:]) - min(sizes[-5:]) < MB

    wait_until(stands_still, "the memory stands still")
    return sizes[-1]


def _status(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("this system does not report the memory of a process")
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

"""The NVIDIA card as its driver's own tool, nvidia-smi, tells it. Needs no torch and starts no CUDA."""

import ctypes
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .facts import Capability, CardFacts

logger = logging.getLogger(__name__)

MIB = 2**20
PATIENCE = 20
"""Seconds: a card that sleeps takes some to answer."""
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Windows shows a console for a moment otherwise."""
_FIELDS = ("name", "driver_version", "memory.total", "memory.free", "compute_cap")
_GENERATIONS: tuple[tuple[str, Capability], ...] = (
    (r"RTX 50\d\d", (12, 0)),
    (r"RTX 40\d\d", (8, 9)),
    (r"RTX 30\d\d", (8, 6)),
    (r"RTX 20\d\d|GTX 16\d\d|TITAN RTX", (7, 5)),
    (r"GTX 10\d\d|TITAN X", (6, 1)),
    (r"GTX 9\d\d", (5, 2)),
)
"""Drivers up to 470 don't tell the capability; those are the ones to warn of, so the name has to do."""
_NVIDIA_VENDOR = "10de"

Runner = Callable[[Sequence[str]], str]


def find_card(run: Runner | None = None) -> CardFacts | None:
    """The card that CUDA would take first, as the driver knows it; None without a card or a driver.

    Args:
        run: runs a command and returns what it prints; raises OSError or SubprocessError.
    """
    run = run or run_tool
    for fields in (_FIELDS, _FIELDS[:-1]):
        command = [_tool(), f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            cards = parse_cards(run(command))
        except (OSError, subprocess.SubprocessError) as error:
            logger.info("nvidia-smi: %s", error)
            continue
        if cards:
            return max(cards, key=_rank)
    return None


def parse_cards(text: str) -> list[CardFacts]:
    """The cards of nvidia-smi's answer, one a line; what it does not know ("[N/A]") is None."""
    rows = ([value.strip() for value in line.split(",")] for line in text.splitlines())
    return [_parse_card(row) for row in rows if len(row) >= len(_FIELDS) - 1]


def run_tool(command: Sequence[str]) -> str:
    """What a program prints. Raises OSError or SubprocessError: it is not there, fails or hangs."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
        creationflags=NO_WINDOW,
    )
    return done.stdout.decode("utf-8", "replace")


def has_nvidia_hardware() -> bool:
    """Whether an NVIDIA card is plugged in, with or without its driver."""
    if sys.platform == "win32":
        return any(f"VEN_{_NVIDIA_VENDOR.upper()}" in name.upper() for name in _windows_adapters())
    devices = Path("/sys/bus/pci/devices").glob("*")
    return any(_is_nvidia_display(device) for device in devices)


def _parse_card(row: list[str]) -> CardFacts:
    name, driver, total, free, *rest = row
    capability = re.fullmatch(r"(\d+)\.(\d+)", rest[0]) if rest else None
    return CardFacts(
        name=name,
        capability=(int(capability[1]), int(capability[2])) if capability else capability_of(name),
        memory=int(total) * MIB if total.isdecimal() else None,
        free=int(free) * MIB if free.isdecimal() else None,
        driver=parse_version(driver),
    )


def capability_of(name: str) -> Capability | None:
    """The generation that a card's name tells; None for names that are not known here."""
    found = (capability for pattern, capability in _GENERATIONS if re.search(pattern, name))
    return next(found, None)


def parse_version(text: str) -> tuple[int, ...] | None:
    """The numbers of a version like `560.94`."""
    return tuple(int(number) for number in text.split(".")) if re.fullmatch(r"\d+(\.\d+)*", text) else None


def _rank(card: CardFacts) -> tuple[Capability, int]:
    """CUDA takes the fastest card first; the newest with the most memory is the nearest to that."""
    return card.capability or (0, 0), card.memory or 0


def _tool() -> str:
    """The driver puts it into Windows' own folder, older ones beside their other tools."""
    found = shutil.which("nvidia-smi")
    if found is None and sys.platform == "win32":
        root = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"))
        programs = Path(os.environ.get("PROGRAMFILES", r"C:\Program Files"))
        places = (root / "System32", programs / "NVIDIA Corporation" / "NVSMI")
        found = next((str(p / "nvidia-smi.exe") for p in places if (p / "nvidia-smi.exe").is_file()), None)
    return found or "nvidia-smi"


def _is_nvidia_display(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text("ascii").strip()
        return vendor == f"0x{_NVIDIA_VENDOR}" and (device / "class").read_text("ascii").startswith("0x03")
    except (OSError, ValueError):
        return False


class _DisplayDevice(ctypes.Structure):
    """DISPLAY_DEVICEW of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("name", ctypes.c_wchar * 32),
        ("description", ctypes.c_wchar * 128),
        ("state", ctypes.c_uint32),
        ("identity", ctypes.c_wchar * 128),
        ("key", ctypes.c_wchar * 128),
    )


def _windows_adapters() -> list[str]:
    """The identities of the display adapters, like `PCI\\VEN_10DE&DEV_2504...`."""
    found = []
    for number in range(64):
        device = _DisplayDevice(size=ctypes.sizeof(_DisplayDevice))
        enumerate_devices = ctypes.windll.user32.EnumDisplayDevicesW  # type: ignore[attr-defined]
        if not enumerate_devices(None, number, ctypes.byref(device), 0):
            break
        found.append(device.identity)
    return found

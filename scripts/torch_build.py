"""Which build of PyTorch fits the graphics card and its driver. Installs nothing, and knows no page.

Runs before any package is installed: the standard library only. On Windows PyPI has only the CPU's build, so
a CUDA one comes from PyTorch's own index; on Linux PyPI has a CUDA one, which needs a new driver.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Version = tuple[int, int]

INDEX = "https://download.pytorch.org/whl/"
PYPI = "pypi"
"""In place of a build's tag: what PyPI has."""
OLDEST_CAPABILITY = (7, 0)
"""The engine's own limit (`diffusers_helper/limits.py`)."""


@dataclass(frozen=True)
class Card:
    """One line of nvidia-smi. `capability` is None where the driver is too old to tell it."""

    name: str
    driver: Version
    capability: Version | None


@dataclass(frozen=True)
class Build:
    """A CUDA build of PyTorch: the drivers it starts with, the compute capabilities it has kernels for."""

    tag: str
    windows_driver: Version
    linux_driver: Version
    oldest: Version
    newest: Version

    def runs_on(self, card: Card, windows: bool) -> bool:
        """Whether the card's driver is new enough and the card is one that this build was made for."""
        needed = self.windows_driver if windows else self.linux_driver
        if card.capability is None or card.driver < needed:
            return False
        return self.oldest <= card.capability <= self.newest


# Facts. Kernels: PyTorch's RELEASE.md, "CUDA Support Matrix" of 2.11 to 2.14 (cu126: 5.0 to 9.0, cu128 and
# cu130: 7.5 to 12.0; 8.9, which is RTX 40, runs those for 8.6). cu128 ended with 2.11, cu126 with 2.14; pip
# then takes the newest that the index still has. Drivers: NVIDIA's CUDA release notes. 12.8 comes with 570.65
# (Linux 570.26), 13.x needs branch 580 (Linux 580.65), 12.6 comes with 560.76 but starts with every driver of
# CUDA 12 ("minor version compatibility": 528.33, Linux 525.60). RTX 50 is 12.0, its first drivers were 57x.
# Not measured: any of this on Windows; 12.6 with drivers from 528.33 to 560.75; cards newer than 12.x.
BUILDS = (
    Build("cu130", (580, 0), (580, 65), (7, 5), (99, 0)),
    Build("cu126", (528, 33), (525, 60), OLDEST_CAPABILITY, (9, 0)),
    Build("cu128", (570, 65), (570, 26), (7, 5), (12, 9)),
)
"""In order of preference: where two of them fit, the first one will get newer versions of PyTorch."""

Reason = Literal["fits", "no_card", "no_answer", "driver_too_old", "card_too_old"]


@dataclass(frozen=True)
class Choice:
    """What to install: the tag of a build, or `PYPI`; for which card, and why not a better one."""

    tag: str
    reason: Reason
    card: Card | None = None
    needed_driver: Version | None = None


def choose(cards: tuple[Card, ...] | None, windows: bool) -> Choice:
    """The build for the best card there is. None as cards: nvidia-smi is there and gives no answer."""
    if cards is None:
        return Choice(PYPI, "no_answer")
    if not cards:
        return Choice(PYPI, "no_card")
    card = max(cards, key=lambda card: card.capability or (0, 0))
    if card.capability is not None and card.capability < OLDEST_CAPABILITY:
        return Choice(PYPI, "card_too_old", card)
    for build in BUILDS:
        if build.runs_on(card, windows):
            # On Linux PyPI's is the same, or newer by a minor version, which the same drivers run.
            return Choice(build.tag if windows or build is not BUILDS[0] else PYPI, "fits", card)
    return Choice(PYPI, "driver_too_old", card, needed_driver=_needed_driver(card, windows))


def _needed_driver(card: Card, windows: bool) -> Version:
    """The newest of what could help: who must update takes the best at once."""
    fitting = [b for b in BUILDS if card.capability is None or b.oldest <= card.capability <= b.newest]
    return max((b.windows_driver if windows else b.linux_driver) for b in fitting)


def still_fits(installed: str | None, choice: Choice) -> bool:
    """Whether the installed PyTorch (its version, such as `2.13.0+cu130`) can stay on this Windows machine.

    It stays where it runs on the card, though another build would be chosen today, and where no card
    answers: a driver that is just being updated is no reason to throw away 5 GB.
    """
    if installed is None:
        return False
    if choice.tag == PYPI or choice.card is None:
        return True
    cuda = re.search(r"\+cu(\d{2,3})$", installed)
    if cuda is None:
        return False
    number = int(cuda[1])
    tag = "cu130" if number >= 130 else "cu128" if number >= 128 else "cu126"
    build = next(build for build in BUILDS if build.tag == tag)
    return number >= 126 and build.runs_on(choice.card, windows=True)


def ask_cards(program: str | None = None) -> tuple[Card, ...] | None:
    """NVIDIA's cards: none where there is no nvidia-smi, None where it fails."""
    program = program or find_nvidia_smi()
    if program is None:
        return ()
    text = _ask(program, "name,driver_version,compute_cap") or _ask(program, "name,driver_version")
    if text is None:
        return None
    return parse_cards(text) or None


def find_nvidia_smi() -> str | None:
    """Where the driver put it: on the PATH, or in one of its two places on Windows."""
    if found := shutil.which("nvidia-smi"):
        return found
    if sys.platform != "win32":
        return None
    system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
    programs = Path(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "NVIDIA Corporation", "NVSMI")
    places = (folder / "nvidia-smi.exe" for folder in (system, programs))
    return next((str(path) for path in places if path.is_file()), None)


def parse_cards(text: str) -> tuple[Card, ...]:
    """Lines such as `NVIDIA GeForce RTX 3060, 560.94, 8.6`; what is no such line is passed over."""
    cards = []
    for fields in csv.reader(text.splitlines(), skipinitialspace=True):
        driver = _version(fields[1]) if len(fields) in (2, 3) else None
        if driver is not None:
            cards.append(Card(fields[0].strip(), driver, _version(fields[2]) if len(fields) == 3 else None))
    return tuple(cards)


def _version(text: str) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def _ask(program: str, fields: str) -> str | None:
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None

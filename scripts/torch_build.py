"""The build of PyTorch that fits the GPU and its driver. Installs nothing, and knows no page.

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
from typing import Any, Literal

Version = tuple[int, ...]

INDEX = "https://download.pytorch.org/whl/"
PYPI = "pypi"
"""The tag that stands for the build on PyPI."""
OLDEST_CAPABILITY = (7, 0)
"""The engine's own limit (`diffusers_helper/limits.py`)."""


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; None for what its driver does not report. `memory` and `free` are bytes of VRAM."""

    name: str
    driver: Version | None
    capability: Version | None
    memory: int | None = None
    free: int | None = None

    @property
    def rank(self) -> tuple[Version, int]:
        """Sort key: CUDA takes the fastest GPU first, most likely the newest with the most memory."""
        return self.capability or (0, 0), self.memory or 0


@dataclass(frozen=True)
class Build:
    """A CUDA build of PyTorch: the drivers it starts with, the compute capabilities it has kernels for."""

    tag: str
    windows_driver: Version
    linux_driver: Version
    oldest: Version
    newest: Version

    def driver(self, windows: bool) -> Version:
        """Returns the oldest driver that the build starts with."""
        return self.windows_driver if windows else self.linux_driver

    def has_kernels_for(self, capability: Version) -> bool:
        """Returns whether the build computes on GPUs of this compute capability."""
        return self.oldest <= capability <= self.newest

    def runs_on(self, gpu: Gpu, windows: bool) -> bool:
        """Returns whether the GPU's driver is new enough and the build has kernels for the GPU."""
        if gpu.capability is None or gpu.driver is None or gpu.driver < self.driver(windows):
            return False
        return self.has_kernels_for(gpu.capability)


# Facts. Kernels: PyTorch's RELEASE.md, "CUDA Support Matrix" of 2.11 to 2.14 (cu126: 5.0 to 9.0, cu128 and
# cu130: 7.5 to 12.0; 8.9, which is RTX 40, runs those for 8.6). cu128 ended with 2.11, cu126 with 2.14; pip
# then takes the newest that the index still has. Drivers: NVIDIA's CUDA release notes. 12.8 comes with 570.65
# (Linux 570.26), 13.x needs branch 580 (Linux 580.65), 12.6 comes with 560.76 but starts with every driver of
# CUDA 12 ("minor version compatibility": 528.33, Linux 525.60). RTX 50 is 12.0, its first drivers were 57x.
# Not measured: any of this on Windows; 12.6 with drivers from 528.33 to 560.75; GPUs newer than 12.x.
BUILDS = (
    Build("cu130", (580, 0), (580, 65), (7, 5), (99, 0)),
    Build("cu126", (528, 33), (525, 60), OLDEST_CAPABILITY, (9, 0)),
    Build("cu128", (570, 65), (570, 26), (7, 5), (12, 9)),
)
"""The builds in order of preference: of two that fit, the first will get newer versions of PyTorch."""

TRITONS = (
    ((2, 10), "3.6.0.post26"),
    ((2, 11), "3.6.0.post26"),
    ((2, 12, 0), "3.7.0.post26"),
    ((2, 12, 1), "3.7.1.post27"),
    ((2, 13), "3.7.1.post27"),
    ((2, 14), "3.8.0.post29"),
)
"""The beginnings of PyTorch's versions, and the triton-windows of the Triton that each names for Linux."""

Reason = Literal["fits", "no_card", "no_answer", "driver_too_old", "card_too_old"]


@dataclass(frozen=True)
class Choice:
    """The build to install, as its tag or `PYPI`: for which GPU, and why not a better one."""

    tag: str
    reason: Reason
    gpu: Gpu | None = None
    needed_driver: Version | None = None


def choose(gpus: tuple[Gpu, ...] | None, windows: bool) -> Choice:
    """Choose the build for the best GPU; None instead of GPUs means that nvidia-smi is there and fails."""
    if gpus is None:
        return Choice(PYPI, "no_answer")
    if not gpus:
        return Choice(PYPI, "no_card")
    gpu = max(gpus, key=lambda gpu: gpu.rank)
    if gpu.capability is not None and gpu.capability < OLDEST_CAPABILITY:
        return Choice(PYPI, "card_too_old", gpu)
    for build in BUILDS:
        if build.runs_on(gpu, windows):
            # On Linux PyPI's is the same, or newer by a minor version, which the same drivers run.
            return Choice(build.tag if windows or build is not BUILDS[0] else PYPI, "fits", gpu)
    return Choice(PYPI, "driver_too_old", gpu, needed_driver=_needed_driver(gpu, windows))


def _needed_driver(gpu: Gpu, windows: bool) -> Version:
    """Returns the newest driver that any fitting build needs: who must update takes the best at once."""
    fitting = [build for build in BUILDS if gpu.capability is None or build.has_kernels_for(gpu.capability)]
    return max(build.driver(windows) for build in fitting)


def still_fits(installed: str | None, choice: Choice) -> bool:
    """Returns whether the installed PyTorch (such as `2.13.0+cu130`) can stay on this Windows machine.

    It stays where it runs on the GPU, though another build would be chosen today, and where no GPU is
    reported: a driver that is just being updated is no reason to throw away 5 GB.
    """
    if installed is None:
        return False
    if choice.tag == PYPI or choice.gpu is None:
        return True
    found = re.search(r"\+cu(\d{1,2})(\d)$", installed)
    cuda = (int(found[1]), int(found[2])) if found else (0, 0)
    return cuda >= (12, 6) and build_for(cuda).runs_on(choice.gpu, windows=True)


def build_for(cuda: Version) -> Build:
    """Returns the build that has the kernels of this CUDA version; before 12.6 they were as in 12.6."""
    tag = "cu130" if cuda >= (13, 0) else "cu128" if cuda >= (12, 8) else "cu126"
    return next(build for build in BUILDS if build.tag == tag)


def oldest_driver(cuda: Version, windows: bool) -> Version | None:
    """Returns the oldest driver that runs this CUDA's major version; None for a CUDA that is unknown here.

    https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    """
    drivers = (build.driver(windows) for build in BUILDS if build.tag.startswith(f"cu{cuda[0]}"))
    return min(drivers, default=None)


def triton_for(torch: str | None) -> str | None:
    """Returns the version of triton-windows that fits a CUDA build of PyTorch; None for other builds."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)\+cu", torch or "")
    version = tuple(map(int, found.groups())) if found else (0, 0, 0)
    return next((triton for prefix, triton in TRITONS if version[: len(prefix)] == prefix), None)


def query_gpus(program: str | None = None) -> tuple[Gpu, ...] | None:
    """Ask nvidia-smi for the NVIDIA GPUs: () where there is no nvidia-smi, None where it fails."""
    program = program or find_nvidia_smi()
    if program is None:
        return ()
    fields = "name,driver_version,memory.total,memory.free"
    text = _query(program, f"{fields},compute_cap") or _query(program, fields)
    return (parse_gpus(text) or None) if text is not None else None


def find_nvidia_smi() -> str | None:
    """Find nvidia-smi on the PATH, or in one of the two folders where drivers put it on Windows."""
    if found := shutil.which("nvidia-smi"):
        return found
    if sys.platform != "win32":
        return None
    system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
    programs = Path(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "NVIDIA Corporation", "NVSMI")
    candidates = (folder / "nvidia-smi.exe" for folder in (system, programs))
    return next((str(path) for path in candidates if path.is_file()), None)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parse lines such as `NVIDIA GeForce RTX 3060, 560.94, 12288, 11011, 8.6`; others are skipped."""
    gpus = []
    for fields in csv.reader(text.splitlines(), skipinitialspace=True):
        driver = _version(fields[1]) if len(fields) in (4, 5) else None
        if driver is not None:
            capability = _version(fields[4]) if len(fields) == 5 else None
            gpus.append(Gpu(fields[0].strip(), driver, capability, _bytes(fields[2]), _bytes(fields[3])))
    return tuple(gpus)


def _version(text: str) -> Version | None:
    found = re.match(r"\d+(\.\d+)+", text.strip())
    return tuple(map(int, found[0].split("."))) if found else None


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) * 2**20 if mebibytes.strip().isdecimal() else None


def _query(program: str, fields: str) -> str | None:
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        answer = run_quietly(command, timeout=30)  # a GPU that sleeps takes some seconds
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout if answer.returncode == 0 else None


def find_dlls() -> None:
    """Let PyTorch, before its import, find the C++ runtime that pip installs on Windows (msvc-runtime)."""
    if sys.platform == "win32":
        os.add_dll_directory(sys.prefix)


def run_quietly(command: list[str], timeout: float, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program without input and, on Windows, without a window; `options` are those of `subprocess.run`.

    Raises OSError or SubprocessError: it cannot be started, or takes longer than `timeout` seconds.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        **options,
    )

"""Installs what a requirements file asks for into the virtual environment that runs this, once.

    venv/bin/python scripts/install_once.py NAME REQUIREMENTS

The versions are those of the file `constraints.txt` beside it, if there is one and pip can follow it.

It is done again when one of the files has changed, when it broke off, and on Windows when the PyTorch that is
there does not run on the GPU. On Windows the Triton that fits PyTorch comes last, because PyTorch names none
there. Knows no page; the standard library only. From the environment: TORCH_INDEX (`cu128`, `cpu`, `pypi`, or
an address) and TORCH_VERSION (`2.10.0`) go before the choice by the GPU.
"""

import hashlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python looks beside this file only
    sys.path.insert(0, str(ROOT))

from scripts.lock import one_at_a_time  # noqa: E402
from scripts.sentences import say  # noqa: E402
from scripts.torch_build import (  # noqa: E402
    INDEX,
    PYPI,
    Choice,
    Gpu,
    Version,
    choose,
    query_gpus,
    still_fits,
    triton_for,
)

LONGEST_ROOT = 60
"""Characters of the app's folder. Windows refuses paths over 260 unless it was told otherwise, and the
longest in torch 2.13 has 171 below venv\\Lib\\site-packages."""
OLDEST_FOR_TRITON = (8, 0)
"""The oldest compute capability that Triton compiles for on Windows."""
# What the user has set for other installations would lead these packages elsewhere.
FOREIGN = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_NO_DEPS")
NO_CACHE = "--no-cache-dir"
"""pip's option for PyTorch: its cache would keep GBs where nobody looks."""
OTHER_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")

TORCH_LINE = re.compile(r"^torch(?![\w.-])[^#;\n]*", re.MULTILINE)

Pip = Callable[[list[str], Mapping[str, str]], int]
"""`pip install` with these arguments and environment variables; returns its exit status."""


def run_pip(arguments: list[str], variables: Mapping[str, str]) -> int:
    """The environment's own pip, with its progress where somebody looks on."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--no-input", "--disable-pip-version-check"]
    # Since 25.1, pip goes on with a download that broke, if it is told to.
    variables = {"PIP_RESUME_RETRIES": "20", **variables}
    return subprocess.run([*command, *arguments], env=variables, check=False).returncode


def installed(package: str) -> str | None:
    """The version of a package in this environment, such as `2.13.0+cu130`."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Machine:
    """The installation's access to the system, which tests replace."""

    environment: Path = Path(sys.prefix)
    variables: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    windows: bool = sys.platform == "win32"
    gpus: Callable[[], tuple[Gpu, ...] | None] = query_gpus
    torch: Callable[[], str | None] = lambda: installed("torch")
    triton: Callable[[], str | None] = lambda: installed("triton-windows")
    pip: Pip = run_pip


@dataclass(frozen=True)
class TorchStep:
    """The packages that pip installs before the rest, and their index (None for PyPI).

    `urgent` steps run even if everything seems installed, because the installed build does not run here.
    `told` is for `say`.
    """

    requirement: str
    index: str | None
    urgent: bool
    told: tuple[str, dict[str, str]]


def install_once(name: str, requirements: Path, machine: Machine) -> bool:
    """Install what is missing, if anything. False where pip failed; pip has said why then."""
    stamp = machine.environment / f"installed-{name}"
    text = requirements.read_text("utf-8")
    constraints = requirements.with_name("constraints.txt")
    versions = _read(constraints)
    limits = ["-c", str(constraints)] if versions else []
    variables = {key: value for key, value in machine.variables.items() if key not in FOREIGN}
    fingerprint = _fingerprint(text + versions, variables)
    done = _read(stamp) == fingerprint
    torch = _torch_step(text, variables, done, machine)
    if done and (torch is None or not torch.urgent):
        _install_triton(text, variables, machine)
        return True
    say("installing", file=requirements.name)
    pin = []
    if torch is not None:
        if not _install_torch(torch, [] if "==" in torch.requirement else limits, variables, machine):
            return _keep_torch(done, machine)
        # Else a package could replace the PyTorch that was chosen by one without CUDA.
        pin = [f"torch=={version}" for version in [machine.torch()] if version is not None]
    elif machine.torch() is None and not _install_whole_torch(text, limits, variables, machine):
        return False
    # Only a whole installation is remembered: whatever breaks it off, the next start repeats it.
    stamp.unlink(missing_ok=True)
    packages = ["-r", str(requirements), *pin]
    if not _pip_within(limits, packages, variables, machine):
        return False
    part = stamp.with_name(stamp.name + ".part")
    part.write_text(fingerprint, "utf-8")
    part.replace(stamp)
    _install_triton(text, variables, machine)
    return True


def _install_triton(text: str, variables: dict[str, str], machine: Machine) -> None:
    """Install, on Windows, the Triton that fits PyTorch if the GPU can use it. Its lack is no failure."""
    torch = machine.torch() if machine.windows and TORCH_LINE.search(text) else None
    triton = triton_for(torch)
    if triton is None or triton == machine.triton():
        return
    if any((gpu.capability or (0, 0)) >= OLDEST_FOR_TRITON for gpu in machine.gpus() or ()):
        say("triton", version=triton)
        # Once, and soon given up, because each start without a network comes here again.
        hasty = ["--no-deps", "--retries", "1", "--timeout", "10"]
        if machine.pip([*hasty, f"triton-windows=={triton}"], variables) != 0:
            say("no_triton")


def _fingerprint(text: str, variables: Mapping[str, str]) -> str:
    wishes = [variables.get(name, "").strip() for name in ("TORCH_INDEX", "TORCH_VERSION")]
    return hashlib.sha256("\n".join([*wishes, text]).encode()).hexdigest() + "\n"


def _read(stamp: Path) -> str:
    try:
        return stamp.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _torch_step(text: str, variables: Mapping[str, str], done: bool, machine: Machine) -> TorchStep | None:
    """None where the file asks for no PyTorch, or where the one that comes with the rest is right."""
    asked = TORCH_LINE.search(text)
    index, version = (variables.get(name, "").strip() for name in ("TORCH_INDEX", "TORCH_VERSION"))
    if asked is None or (done and (index or not machine.windows)):  # (asking the driver takes a moment)
        return None
    requirement = f"torch=={version}" if version else asked[0].strip()
    installed = machine.torch()
    wish = "torch_wish", {"wish": f"{requirement} {index}".strip()}
    if index:
        return TorchStep(requirement, _address(index), not _is_from(index, installed), wish)
    if installed is not None and not machine.windows:
        # Whoever put another PyTorch there, on Linux, knows why.
        return TorchStep(requirement, None, False, wish) if version else None
    choice = choose(machine.gpus(), machine.windows)
    if choice.tag == PYPI and not (machine.windows or version) and choice.reason in ("fits", "no_card"):
        return None
    urgent = installed is None or not still_fits(installed, choice)
    return TorchStep(requirement, _address(choice.tag), urgent, _told(choice))


def _is_from(index: str, installed: str | None) -> bool:
    """Check that the installed version is of that index, as far as its suffix tells."""
    if installed is None:
        return False
    tag = index.rstrip("/").rpartition("/")[2]
    return "+" not in installed if tag == PYPI else installed.endswith(f"+{tag}")


def _address(index: str) -> str | None:
    if index == PYPI:
        return None
    return index if "://" in index else INDEX + index


def _told(choice: Choice) -> tuple[str, dict[str, str]]:
    values = {"cuda": "CUDA" if choice.tag == PYPI else f"CUDA {choice.tag[2:-1]}.{choice.tag[-1]}"}
    if choice.gpu is not None and choice.gpu.driver is not None:
        values |= {"card": choice.gpu.name, "driver": _shown(choice.gpu.driver)}
    if choice.needed_driver is not None:
        values["needed"] = _shown(choice.needed_driver)
    return f"torch_{choice.reason}", values


def _shown(driver: Version) -> str:
    return f"{driver[0]}.{driver[1]:02}" if driver[1] else str(driver[0])


def _install_torch(torch: TorchStep, limits: list[str], variables: dict[str, str], machine: Machine) -> bool:
    code, values = torch.told
    say(code, **values)
    # What it depends on comes from PyPI with the rest. A version can be right, and its build wrong.
    arguments = ["--no-deps", NO_CACHE, *(["--force-reinstall"] if torch.urgent and machine.torch() else [])]
    if torch.index is None:
        return _pip_within(limits, [*arguments, torch.requirement], variables, machine)
    # Old pips begin a broken download of GBs again. Where there is no newer one, it goes without.
    machine.pip(["--upgrade", "pip"], variables)
    # An index of the user's, asked as well, could have a newer PyTorch, and that without CUDA.
    own = {key: value for key, value in variables.items() if key not in OTHER_INDEXES}
    return _pip_within(limits, [*arguments, "--index-url", torch.index, torch.requirement], own, machine)


def _install_whole_torch(
    text: str, limits: list[str], variables: Mapping[str, str], machine: Machine
) -> bool:
    """Install PyTorch with what it depends on, before the rest, which pip's cache may keep."""
    asked = TORCH_LINE.search(text)
    return asked is None or _pip_within(limits, [NO_CACHE, asked[0].strip()], variables, machine)


def _pip_within(
    limits: list[str], arguments: list[str], variables: Mapping[str, str], machine: Machine
) -> bool:
    """Install at the tried versions, or once more without them: pip may not be able to follow."""
    if limits and machine.pip([*arguments, *limits], variables) == 0:
        return True
    if limits:
        say("unconstrained")
    return machine.pip(arguments, variables) == 0


def _keep_torch(done: bool, machine: Machine) -> bool:
    """Let the app start where everything is installed and only exchanging PyTorch failed (no network)."""
    if done and machine.torch() is not None:
        say("torch_kept")
        return True
    return False


def path_may_be_too_long(root: Path) -> bool:
    """Check whether Windows may refuse the longest paths in this folder."""
    if sys.platform != "win32" or len(str(root)) <= LONGEST_ROOT:
        return False
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return not winreg.QueryValueEx(key, "LongPathsEnabled")[0]
    except OSError:
        return True


def main(arguments: list[str]) -> int:
    """Exit status 0 when everything is installed, else 1, and then it has said what to do."""
    name, requirements = arguments
    with one_at_a_time(ROOT, lambda: say("waiting")):
        if install_once(name, Path(requirements), Machine()):
            return 0
    say("not_installed", free=shutil.disk_usage(ROOT).free // 10**9)
    if path_may_be_too_long(ROOT):
        say("long_path", length=len(str(ROOT)))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

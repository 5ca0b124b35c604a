"""Installs what a requirements file asks for into the virtual environment that runs this, once.

    venv/bin/python scripts/install_once.py NAME REQUIREMENTS

It is done again when the file has changed, when it broke off, and on Windows when the PyTorch that is there
does not run on the GPU. Knows no page; the standard library only. From the environment: TORCH_INDEX
(`cu128`, `cpu`, `pypi`, or an address) and TORCH_VERSION (`2.10.0`) go before the choice by the GPU.
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
from scripts.torch_build import INDEX, PYPI, Choice, Gpu, Version, choose, query_gpus, still_fits  # noqa: E402

LONGEST_ROOT = 60
"""Characters of the app's folder. Windows refuses paths over 260 unless it was told otherwise, and the
longest in torch 2.13 has 171 below venv\\Lib\\site-packages."""
# What the user has set for other installations would lead these packages elsewhere.
FOREIGN = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT", "PIP_NO_DEPS")
OTHER_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")

Pip = Callable[[list[str], Mapping[str, str]], int]
"""`pip install` with these arguments and environment variables; returns its exit status."""


def run_pip(arguments: list[str], variables: Mapping[str, str]) -> int:
    """The environment's own pip, with its progress where somebody looks on."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--no-input", "--disable-pip-version-check"]
    # Since 25.1, pip goes on with a download that broke, if it is told to.
    variables = {"PIP_RESUME_RETRIES": "20", **variables}
    return subprocess.run([*command, *arguments], env=variables, check=False).returncode


def installed_torch() -> str | None:
    """The version of PyTorch in this environment, such as `2.13.0+cu130`."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Machine:
    """The installation's access to the system, which tests replace."""

    environment: Path = Path(sys.prefix)
    variables: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    windows: bool = sys.platform == "win32"
    gpus: Callable[[], tuple[Gpu, ...] | None] = query_gpus
    torch: Callable[[], str | None] = installed_torch
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
    variables = {key: value for key, value in machine.variables.items() if key not in FOREIGN}
    fingerprint = _fingerprint(text, variables)
    done = _read(stamp) == fingerprint
    torch = _torch_step(text, variables, done, machine)
    if done and (torch is None or not torch.urgent):
        return True
    say("installing", file=requirements.name)
    pin = []
    if torch is not None:
        if not _install_torch(torch, variables, machine):
            return _keep_torch(done, machine)
        # Else a package could replace the PyTorch that was chosen by one without CUDA.
        pin = [f"torch=={version}" for version in [machine.torch()] if version is not None]
    # Only a whole installation is remembered: whatever breaks it off, the next start repeats it.
    stamp.unlink(missing_ok=True)
    if machine.pip(["-r", str(requirements), *pin], variables) != 0:
        return False
    part = stamp.with_name(stamp.name + ".part")
    part.write_text(fingerprint, "utf-8")
    part.replace(stamp)
    return True


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
    asked = re.search(r"^torch(?![\w.-])[^#;\n]*", text, re.MULTILINE)
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


def _install_torch(torch: TorchStep, variables: dict[str, str], machine: Machine) -> bool:
    code, values = torch.told
    say(code, **values)
    # What it depends on comes from PyPI with the rest. A version can be right, and its build wrong.
    arguments = ["--no-deps", *(["--force-reinstall"] if torch.urgent and machine.torch() else [])]
    if torch.index is None:
        return machine.pip([*arguments, torch.requirement], variables) == 0
    # Old pips begin a broken download of GBs again. Where there is no newer one, it goes without.
    machine.pip(["--upgrade", "pip"], variables)
    # An index of the user's, asked as well, could have a newer PyTorch, and that without CUDA.
    own = {key: value for key, value in variables.items() if key not in OTHER_INDEXES}
    return machine.pip([*arguments, "--index-url", torch.index, torch.requirement], own) == 0


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

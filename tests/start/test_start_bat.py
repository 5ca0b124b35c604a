"""The script start.bat under Wine's cmd, with a stand-in for every Python.

It cannot show real Windows, nor a `%` in the folder's name, which Wine expands twice (the real cmd does not).
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = "x86_64-w64-mingw32-gcc"
FOLDER = "絵 から [1] (動画) & more ! ^"
SECONDS = 300
PAUSE = "Press any key to continue"
NO_PYTHON = "Python 3.10、3.11、3.12、3.13、3.14（64 ビット版）のどれもない"
CHECK = r"scripts\check_python.py"
MAKE = r"scripts\make_environment.py"
UV_CHECKSUM, UV_ADDRESS = (ROOT / "scripts" / "uv.txt").read_text("utf-8").split()[1:3]
DOWNLOAD = [
    "curl --fail --location --silent --show-error --retry 3 --connect-timeout 30 --output "
    rf"uv\new\uv.zip {UV_ADDRESS}",
    r"certutil -hashfile uv\new\uv.zip SHA256",
    r"tar -xf uv\new\uv.zip -C uv\new --strip-components 2 */scripts/uv.exe",
]
UV_INSTALL = "uv python install --reinstall 3.13"
INSTALL = r"python scripts\install_once.py app requirements.txt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("wine") is None or shutil.which(COMPILER) is None,
        reason="needs Wine and a compiler: apt-get install wine gcc-mingw-w64-x86-64-win32",
    ),
]


@dataclass(frozen=True)
class Call:
    """A call of a stand-in; `arguments` begin with its name."""

    program: str
    directory: str
    python_path: str
    arguments: str


@dataclass(frozen=True)
class Start:
    """One double-click: exit status, what the window shows, the calls."""

    status: int
    shown: str
    calls: tuple[Call, ...]

    @property
    def commands(self) -> list[str]:
        return [call.arguments.rstrip() for call in self.calls]


class Windows:
    """A Windows with an unpacked app, and with the Pythons that a test puts on the PATH."""

    def __init__(self, folder: Path, standin: Path, prefix: Path):
        self._standin, self._prefix = standin, prefix
        self.notes, self.path = folder / "notes", folder / "bin"
        self._system = prefix / "drive_c" / "windows" / "system32"
        for name in ("curl", "certutil", "tar"):
            (self._system / f"{name}.exe").unlink(missing_ok=True)
        self.desktop, self.app = folder / "desktop", folder / FOLDER
        for place in (self.notes, self.path, self.desktop, self.app / "scripts"):
            place.mkdir(parents=True)
        scripts = [f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.*t")]
        for name in ("start.bat", "environment2.bat", *scripts):
            text = (ROOT / name).read_text("utf-8")
            assert "</nul" not in text, "a path: not every Windows takes it for the device"
            (self.app / name).write_text(text, "utf-8", newline="\r\n" if name.endswith("bat") else "\n")
        (self.app / "scripts" / "install_once.py").touch()  # the stand-ins only look at its name

    def put(self, *names: str) -> None:
        """Put Pythons on the PATH: `py`, `python`."""
        for name in names:
            shutil.copy(self._standin, self.path / f"{name}.exe")

    def offer_downloads(self) -> None:
        """Put the programs into Windows that Windows 10 has and Wine lacks: curl, certutil, tar."""
        for name in ("curl", "certutil", "tar"):
            shutil.copy(self._standin, self._system / f"{name}.exe")
        (self.notes / "checksum").write_text(UV_CHECKSUM)

    def fail(self, *rules: str) -> None:
        """Let calls fail: each rule is an exit status and a part of the calls that end with it."""
        (self.notes / "rules").write_text("\n".join(rules) + "\n")

    def environment2(self, line: str) -> None:
        """A line at the end of environment2.bat, as the user would put it there."""
        with (self.app / "environment2.bat").open("a", encoding="utf-8", newline="\r\n") as file:
            file.write(line + "\n")

    def start(self, *arguments: str, **variables: str) -> Start:
        """Start start.bat by its whole path, with the desktop as the current directory."""
        log = self.notes / "log"
        log.unlink(missing_ok=True)
        environment = os.environ | wine_environment(self._prefix) | variables
        environment |= {"WINEPATH": f"Z:{self.path}", "STANDIN": f"Z:{self.notes}"}
        done = subprocess.run(
            ["wine", f"Z:{self.app}/start.bat".replace("/", "\\"), *arguments],
            cwd=self.desktop,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        calls = tuple(Call(*line.split("|", 3)) for line in lines)
        return Start(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"), calls)


def wine_environment(prefix: Path) -> dict[str, str]:
    quiet = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=;certutil.exe=n", "DISPLAY": ""}
    return quiet | {"WINEPREFIX": str(prefix), "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """A fresh Windows, and the stand-in as its program."""
    folder = tmp_path_factory.mktemp("wine")
    prefix, standin = folder / "prefix", folder / "standin.exe"
    source = ROOT / "tests" / "start" / "standin.c"
    subprocess.run([COMPILER, "-municode", "-Wall", "-Werror", "-s", source, "-o", standin], check=True)
    environment = os.environ | wine_environment(prefix)
    hello = ["wine", "cmd", "/c", "echo %OS%"]
    done = subprocess.run(hello, env=environment, capture_output=True, timeout=SECONDS, check=False)
    if b"Windows_NT" not in done.stdout:
        pytest.skip(f"Wine does not work here: {done.stderr[-200:].decode(errors='replace')}")
    # As long as one program runs, Wine neither begins nor ends its services at each start.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(["wine", "cmd"], env=environment, **pipes) as program:
        program.stdin.write(b"echo %OS%\r\n")
        program.stdin.flush()
        # Not before it answers: services that another one begins would keep that one's output open for ever.
        assert any(b"Windows_NT" in line for line in program.stdout)
        yield prefix, standin  # the program ends with its input


@pytest.fixture
def windows(tmp_path, wine) -> Windows:
    prefix, standin = wine
    return Windows(tmp_path, standin, prefix)


def test_the_first_start_installs_and_the_second_only_starts(windows):
    windows.put("py", "python")
    first = windows.start("--models", r"D:\my models (2)", "--name", "猫", PYTHONPATH=r"C:\other")
    app = rf'python "Z:{windows.app}\webui\endframe_ichi.py" --inbrowser'.replace("/", "\\")
    assert first.commands == [
        f"py -3.14 {CHECK}",
        f"py -3.14 {MAKE}",
        INSTALL,
        app + r'  --models "D:\my models (2)" --name 猫',
    ]
    assert first.status == 0
    assert PAUSE not in first.shown

    windows.environment2('set "START_OPTIONS=--port 8002 --lang ja"')
    second = windows.start()
    assert second.commands == [f"python {CHECK} venv", INSTALL, f"{app} --port 8002 --lang ja"]
    own = f"Z:{windows.app}".replace("/", "\\")
    assert {call.program for call in second.calls} == {rf"{own}\venv\Scripts\python.exe"}
    assert {call.python_path for call in first.calls + second.calls} == {""}
    # The app runs where the user is, so that relative paths among the arguments mean what they say.
    assert {call.directory for call in second.calls[:-1]} == {own}
    assert second.calls[-1].directory == f"Z:{windows.desktop}".replace("/", "\\")


def test_a_broken_environment_is_made_anew(windows):
    windows.put("py")
    windows.start()
    windows.fail(f"1 python {CHECK} venv", "103 py -3.14", f"1 py -3.13 {CHECK}", f"1 py -3.12 {CHECK}")
    again = windows.start()
    asked = [f"py -{version} {CHECK}" for version in ("3.14", "3.13", "3.12", "3.11")]
    assert again.commands[:-1] == [f"python {CHECK} venv", *asked, f"py -3.11 {MAKE}", INSTALL]


def test_a_python_may_be_a_batch_file(windows):
    windows.put("py")
    (windows.path / "python.bat").write_text("@py -real %*\n", newline="\r\n")
    windows.fail("1 py -3")
    start = windows.start()
    assert start.commands[-4:-1] == [f"py -real {CHECK}", f"py -real {MAKE}", INSTALL]
    assert start.status == 0


def test_an_empty_batch_file_is_no_python(windows):
    windows.put("py")
    windows.fail("1 py -3")
    (windows.path / "python.bat").touch()
    start = windows.start()
    assert start.status == 1
    assert NO_PYTHON in start.shown


def test_the_users_python_comes_first(windows):
    windows.put("py")
    own = windows.path / "my python.exe"
    shutil.copy(windows.path / "py.exe", own)
    windows.environment2(f'set "PYTHON_FOR_VENV=Z:{own}"'.replace("/", "\\"))
    assert windows.start().commands[:2] == [f"my python {CHECK}", f"my python {MAKE}"]


@pytest.mark.parametrize(
    ("pythons", "rules", "commands"),
    [
        ([], [], []),
        (  # an old Python and the store's stub do not count
            ["py", "python"],
            ["1 py -3", "9009 python scripts"],
            [
                *(f"py -{version} {CHECK}" for version in ("3.14", "3.13", "3.12", "3.11", "3.10")),
                f"python {CHECK}",
            ],
        ),
    ],
)
def test_without_python_the_window_names_its_page_and_stays_open(windows, pythons, rules, commands):
    windows.put(*pythons)
    windows.fail(*rules)
    start = windows.start()
    assert (start.status, start.commands) == (1, commands)
    assert "A program that is needed for the download" in start.shown
    assert NO_PYTHON in start.shown
    assert "winget install --exact --id Python.Python.3.13" in start.shown
    assert start.shown.rstrip(". ").endswith(PAUSE)


@pytest.mark.parametrize(
    ("status", "step", "sentence"),
    [
        (1, MAKE, PAUSE),
        (1, INSTALL, PAUSE),
        (2, "endframe_ichi.py", "アプリが停止しました。理由は上のメッセージで確認してください。"),
        (130, "endframe_ichi.py", ""),  # Ctrl-C is no failure
    ],
)
def test_a_failed_step_ends_the_start_with_the_window_open(windows, status, step, sentence):
    windows.put("python")  # without the launcher, python itself is used
    windows.fail(f"{status} {step}")
    start = windows.start()
    assert step in start.commands[-1]
    assert start.commands[:2] == [f"python {CHECK}", f"python {MAKE}"]
    assert start.status == status
    assert sentence in start.shown
    assert (PAUSE in start.shown) == (status != 130)
    if status == 2:
        assert PAUSE not in windows.start(NO_PAUSE="1").shown


def test_an_incompletely_unpacked_app_is_reported(windows):
    shutil.rmtree(windows.app / "scripts")
    start = windows.start()
    assert "Unpack the whole ZIP file" in start.shown
    assert start.status == 1


def unquoted(commands: list[str]) -> list[str]:
    return [command.replace('"', "") for command in commands]


def test_without_python_uv_brings_one_into_the_folder(windows):
    windows.put("py")
    windows.fail("1 py -3")  # a Python that is too new
    windows.offer_downloads()
    first = windows.start()
    assert "No usable Python was found, so one will be downloaded" in first.shown
    begin = len([command for command in first.commands if command.startswith("py ")])
    steps = [*DOWNLOAD, UV_INSTALL, f"python {CHECK}", f"python {MAKE}", INSTALL]
    assert unquoted(first.commands[begin:-1]) == steps
    own = f"Z:{windows.app}\\uv\\python\\cpython-3.13.9-windows-x86_64-none\\python.exe".replace("/", "\\")
    assert first.calls[-3].program == own
    assert first.status == 0
    assert sorted(path.name for path in (windows.app / "uv").iterdir()) == ["python", "uv.exe"]

    shutil.rmtree(windows.app / "venv")
    again = windows.start()  # the Python that is there needs no network
    assert unquoted(again.commands[begin:-1]) == [f"python {CHECK}", f"python {MAKE}", INSTALL]
    shutil.rmtree(windows.app / "venv")
    shutil.rmtree(windows.app / "uv" / "python")
    third = windows.start()  # nor does the uv that is there, or came with the app
    assert unquoted(third.commands[begin:-1]) == ["uv --version", *steps[len(DOWNLOAD) :]]


def test_a_damaged_uv_and_a_damaged_python_are_fetched_again(windows):
    windows.offer_downloads()
    windows.start()
    uv = windows.app / "uv" / "uv.exe"
    whole = uv.read_bytes()
    steps = [*DOWNLOAD, UV_INSTALL, f"python {CHECK}", f"python {MAKE}", INSTALL]
    for damaged in (b"", whole[:1000], bytes(len(whole))):
        uv.write_bytes(damaged)
        shutil.rmtree(windows.app / "venv")
        (python,) = (windows.app / "uv" / "python").glob("*/python.exe")
        python.write_bytes(damaged)
        start = windows.start()
        assert (start.status, unquoted(start.commands[:-1])) == (0, steps)
        assert uv.read_bytes() == whole


@pytest.mark.parametrize(
    ("rule", "checksum", "sentence"),
    [
        ("6 curl", UV_CHECKSUM, "Python could not be downloaded. Check your internet"),
        ("28 curl", UV_CHECKSUM, "Python could not be downloaded. Check your internet"),
        ("5 curl", UV_CHECKSUM, "A proxy or security program blocked the download"),
        ("56 curl", UV_CHECKSUM, "A proxy or security program blocked the download"),
        ("18 curl", UV_CHECKSUM, "The downloaded file was damaged or incomplete"),
        ("0 no", "0" * 64, "The downloaded file was damaged or incomplete"),
        ("23 curl", UV_CHECKSUM, "This folder cannot be written to"),
        ("1 tar", UV_CHECKSUM, "This folder cannot be written to"),
        ("1 uv python install", UV_CHECKSUM, "Python could not be set up. See the messages above"),
    ],
)
def test_the_reason_why_no_python_came_is_named(windows, rule, checksum, sentence):
    windows.offer_downloads()
    (windows.notes / "checksum").write_text(checksum)
    windows.fail(rule)
    start = windows.start()
    assert start.status == 1
    assert sentence in start.shown
    assert NO_PYTHON in start.shown
    assert PAUSE in start.shown
    assert not (windows.app / "uv" / "new").exists()
    assert not (windows.app / "venv").exists()

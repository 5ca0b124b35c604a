"""The script start.sh in clean folders, with real virtual environments and a folder of wheels as index."""

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "絵 から [1] (動画) & 100% more! ^ $HOME `x` 'y'"
INSTALLING = "Installing the packages in requirements.txt"
APP = """
import json, os, sys
import tiny_package
starter = os.environ["ENDFRAME_ICHI_STARTER"]
print(json.dumps([sys.argv[1:], os.getcwd(), sys.prefix, tiny_package.VERSION, starter]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there, start.bat does this"),
]


@dataclass(frozen=True)
class Start:
    """One start: exit status, what was said, and what the app saw where it came so far."""

    status: int
    said: str
    arguments: list[str] | None = None
    directory: str | None = None
    prefix: str | None = None
    version: int | None = None
    starter: str | None = None


class Unpacked:
    """The app's scripts in a folder of their own, with a small program in place of the app."""

    def __init__(self, folder: Path):
        self.root, self.wheels, self.desktop = folder / FOLDER, folder / "wheels", folder / "desktop"
        for place in (self.root / "webui", self.wheels, self.desktop):
            place.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "start.sh", self.root)
        (self.root / "webui" / "endframe_ichi.py").write_text(APP)
        self.ask_for(1)

    def ask_for(self, version: int) -> None:
        (self.root / "requirements.txt").write_text(f"# The only one.\ntiny-package=={version}\n")

    def publish(self, version: int) -> None:
        name = f"tiny_package-{version}"
        notes = f"{name}.dist-info"
        with zipfile.ZipFile(self.wheels / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_package.py", f"VERSION = {version}\n")
            wheel.writestr(
                f"{notes}/METADATA", f"Metadata-Version: 2.1\nName: tiny-package\nVersion: {version}\n"
            )
            wheel.writestr(f"{notes}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{notes}/RECORD", "")

    def start(self, *arguments: str, **variables: str) -> Start:
        hidden = ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_FOR_VENV", "TORCH_INDEX", "TORCH_VERSION")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        environment |= {"TMPDIR": str(self.desktop.parent)} | variables
        done = subprocess.run(
            [shutil.which("bash") or "bash", self.root / "start.sh", *arguments],
            cwd=self.desktop,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        *said, last = done.stdout.splitlines() or [""]
        if last.startswith("[["):
            return Start(done.returncode, "\n".join(said), *json.loads(last))
        return Start(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Unpacked:
    """An app that was started once, after a first try without a network."""
    app = Unpacked(tmp_path_factory.mktemp("start"))
    failed = app.start()
    assert failed.status == 1
    assert failed.arguments is None
    assert "インストールに失敗しました" in failed.said
    assert "check the network and the free disk space" in failed.said
    app.publish(1)
    first = app.start()
    assert INSTALLING in first.said
    assert (first.status, first.version, first.starter) == (0, 1, "bash start.sh")
    assert first.prefix == str(app.root / "venv")
    return app


def test_a_second_start_installs_nothing_and_passes_arguments(app):
    given = ["--models", "my models (2)", "猫 & $HOME", "--port=8002"]
    second = app.start(*given, PYTHONPATH="/other", PYTHONHOME="/other")
    assert second.said == ""
    assert second.arguments == given
    assert second.directory == str(app.desktop)  # relative paths mean what they say


@pytest.mark.parametrize("screen", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_the_browser_opens_only_with_a_screen(app, screen):
    assert app.start("--lang", "ja", **{screen: ":0"}).arguments == ["--inbrowser", "--lang", "ja"]


def test_changed_requirements_are_installed_at_the_next_start(app):
    app.publish(2)
    app.ask_for(2)
    changed = app.start()
    assert INSTALLING in changed.said
    assert changed.version == 2
    assert app.start().said == ""


def test_a_moved_folder_starts_without_installing(app):
    before, after = app.root, app.root.with_name("moved")
    before.rename(after)
    app.root = after
    try:
        moved = app.start()
    finally:
        after.rename(before)
        app.root = before
    assert (moved.status, moved.said) == (0, "")
    assert moved.prefix == str(after / "venv")


def test_an_incomplete_environment_is_made_anew(app):
    shutil.rmtree(next((app.root / "venv" / "lib").glob("python3*/site-packages/pip")))
    repaired = app.start()
    assert "Creating a virtual environment in" in repaired.said
    assert INSTALLING in repaired.said
    assert repaired.status == 0


@pytest.fixture
def fresh(tmp_path) -> Unpacked:
    """An app in whose folder no virtual environment can be made."""
    app = Unpacked(tmp_path / "fresh")
    (app.root / "venv").write_text("a file, in the way")
    return app


def put(program: Path, script: str) -> None:
    program.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    program.chmod(0o755)


def only_python(folder: Path, script: str) -> str:
    """A PATH with the few programs that start.sh needs, and a `python3` that does as it is told."""
    for name in ("dirname", "uname"):
        (folder / name).symlink_to(shutil.which(name))
    put(folder / "python3", script)
    return str(folder)


@pytest.mark.parametrize(
    ("script", "sentences"),
    [
        (
            "exit 1",
            [
                "A program that is needed for the download",
                "Python 3.10、3.11、3.12、3.13、3.14 のどれも見つかりません",
                "https://www.python.org/downloads/",
            ],
        ),
        (
            "case $2 in *print*) echo python3.12-venv;; *) exit 3;; esac",
            ["python3 has no venv module", "sudo apt install python3.12-venv"],
        ),
        (
            f"""case "$*" in *check_python*) echo usable; exit;; esac; exec "{sys.executable}" "$@" """,
            ["仮想環境を作れませんでした", "The virtual environment could not be created"],
        ),
    ],
)
def test_the_reason_why_there_is_no_environment_is_named(fresh, tmp_path, script, sentences):
    start = fresh.start(PATH=only_python(tmp_path, script))
    assert start.status == 1
    assert all(sentence in start.said for sentence in sentences), start.said


def test_the_users_python_is_used(fresh, tmp_path):
    put(tmp_path / "own python", "case $1 in *check_python*) echo usable; exit;; esac; echo mine >&2")
    path = only_python(tmp_path, "exit 3")
    start = fresh.start(PATH=path, PYTHON_FOR_VENV=str(tmp_path / "own python"))
    assert start.said.startswith("mine")  # it only pretends to have made one, so nothing else can be said


UV = """#!/bin/sh
[ "$*" = "--version" ] && echo uv 0.13.9 && exit
echo "$*"
[ "$*" = "python install --reinstall 3.13" ] || exit 2
mkdir -p "$UV_PYTHON_INSTALL_DIR/cpython-3.13.9-linux-x86_64-gnu/bin" "$UV_CACHE_DIR" || exit 1
ln -sf REAL "$UV_PYTHON_INSTALL_DIR/cpython-3.13.9-linux-x86_64-gnu/bin/python3"
exit STATUS
"""
TOOLS = ("bash", "chmod", "curl", "dirname", "ln", "mkdir", "mv", "rm", "sh", "sha256sum", "uname")


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves one file, or less of it, or an error."""

    body, status, whole = b"", 200, True

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body if self.whole else self.body[:-9])

    def log_message(self, *_: object) -> None:
        """Keep the terminal as it is."""


def wheel_of_uv(status: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as wheel:
        script = UV.replace("REAL", sys.executable).replace("STATUS", str(status))
        wheel.writestr("uv-0.13.9.data/scripts/uv", script)
        wheel.writestr("uv-0.13.9.dist-info/RECORD", "")
    return file.getvalue()


@pytest.fixture
def without_python(tmp_path):
    """An app, a function that starts it where no Python is new or old enough, and a server with uv."""
    app = Unpacked(tmp_path / "without")
    app.publish(1)
    path = tmp_path / "programs"
    path.mkdir()
    for name in TOOLS:
        (path / name).symlink_to(shutil.which(name))
    put(
        path / "python3",
        f"""case "$*" in *check_python*) exit 1;; *-m\\ zipfile*) exec "{sys.executable}" "$@";; esac
exit 1""",
    )
    answers = type("TheseAnswers", (Answers,), {"body": wheel_of_uv(0)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def start(checksum: str | None = None, **variables: str) -> Start:
            checksum = checksum or hashlib.sha256(answers.body).hexdigest()
            line = f"linux {checksum} http://127.0.0.1:{server.server_port}/uv-0.13.9-py3-none-any.whl\n"
            (app.root / "scripts" / "uv.txt").write_text(f"windows 0 http://127.0.0.1:1/\n{line}")
            return app.start(PATH=str(path), **{"http_proxy": "", "no_proxy": ""} | variables)

        yield app, start, answers
        server.shutdown()


def test_without_a_python_uv_brings_one_into_the_folder(without_python):
    app, start, _ = without_python
    first = start()
    assert (first.status, first.version) == (0, 1), first.said
    assert "No usable Python was found, so one will be downloaded" in first.said
    home = (app.root / "venv" / "pyvenv.cfg").read_text("utf-8")
    assert f"{app.root}/uv/python/cpython-3.13.9-linux-x86_64-gnu/bin" in home
    assert sorted(path.name for path in (app.root / "uv").iterdir()) == ["cache", "python", "uv"]
    shutil.rmtree(app.root / "venv")
    again = start(http_proxy="http://127.0.0.1:1")  # the one that is there needs no network
    assert (again.status, again.version) == (0, 1), again.said
    assert "getting one" not in again.said


def test_an_empty_program_is_no_python(without_python, tmp_path):
    _, start, _ = without_python
    (empty := tmp_path / "programs" / "python3.14").touch()
    empty.chmod(0o755)
    first = start()
    assert (first.status, first.version) == (0, 1), first.said
    assert "No usable Python was found, so one will be downloaded" in first.said


def test_a_uv_that_came_with_the_app_is_used(without_python):
    app, start, answers = without_python
    answers.status = 404
    (app.root / "uv").mkdir()
    put(app.root / "uv" / "uv", UV.partition("\n")[2].replace("REAL", sys.executable).replace("STATUS", "0"))
    assert start().version == 1


@pytest.mark.parametrize("damaged", [b"", b"\x7fELF", b"#!/bin/sh\nexit 127\n"])
def test_a_damaged_uv_and_a_damaged_python_are_fetched_again(without_python, damaged):
    app, start, _ = without_python
    start()
    uv = app.root / "uv" / "uv"
    whole = uv.read_bytes()
    uv.write_bytes(damaged)
    (python,) = (app.root / "uv" / "python").glob("*/bin/python3")
    python.unlink()
    python.touch()
    shutil.rmtree(app.root / "venv")
    again = start()
    assert (again.status, again.version) == (0, 1), again.said
    assert uv.read_bytes() == whole


@pytest.mark.parametrize(
    ("state", "options", "sentence"),
    [
        ({}, {"checksum": "0" * 64}, "The downloaded file was damaged or incomplete"),
        ({"whole": False}, {}, "The downloaded file was damaged or incomplete"),
        ({"status": 407}, {}, "A proxy or security program blocked the download"),
        ({"status": 403}, {}, "A proxy or security program blocked the download"),
        ({}, {"http_proxy": "http://127.0.0.1:1"}, "Python could not be downloaded. Check your internet"),
        ({"body": wheel_of_uv(1)}, {}, "Python could not be set up. See the messages above"),
        ({"body": b"no archive"}, {}, "This folder cannot be written to"),
    ],
)
def test_the_reason_why_no_python_came_is_named(without_python, state, options, sentence):
    app, start, answers = without_python
    for name, value in state.items():
        setattr(answers, name, value)
    start = start(**options)
    assert start.status == 1
    assert sentence in start.said
    assert "No Python 3.10, 3.11, 3.12, 3.13 or 3.14 was found" in start.said
    assert not (app.root / "uv" / "new").exists()
    assert not (app.root / "venv").exists()


def test_a_folder_that_cannot_be_written_is_named(without_python):
    app, start, _ = without_python
    (app.root / "uv").write_text("a file, in the way")
    assert "This folder cannot be written to" in start().said

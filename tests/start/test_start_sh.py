"""The script start.sh in clean folders, with real virtual environments and a folder of wheels as index."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "絵 から [1] (動画) & 100% more! ^ $HOME `x` 'y'"
INSTALLING = "Installing what requirements.txt asks for"
APP = """
import json, os, sys
import tiny_package
print(json.dumps([sys.argv[1:], os.getcwd(), sys.prefix, tiny_package.VERSION]))
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
    assert (first.status, first.version) == (0, 1)
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
    assert "Making a virtual environment in" in repaired.said
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
            ["Python 3.10、3.11、3.12、3.13 のどれも見つかりません", "https://www.python.org/downloads/"],
        ),
        (
            "case $2 in *print*) echo python3.12-venv;; *exit*) ;; *) exit 1;; esac",
            ["python3 lacks its venv module", "sudo apt install python3.12-venv"],
        ),
        (
            f"""case "$*" in *check_python*) exit 0;; esac; exec "{sys.executable}" "$@" """,
            ["仮想環境を作れませんでした", "The virtual environment could not be made"],
        ),
    ],
)
def test_the_reason_why_there_is_no_environment_is_named(fresh, tmp_path, script, sentences):
    start = fresh.start(PATH=only_python(tmp_path, script))
    assert start.status == 1
    assert all(sentence in start.said for sentence in sentences), start.said


def test_the_users_python_is_used(fresh, tmp_path):
    put(tmp_path / "own python", "echo mine >&2\nexit 0")
    path = only_python(tmp_path, "exit 3")
    start = fresh.start(PATH=path, PYTHON_FOR_VENV=str(tmp_path / "own python"))
    assert start.said.startswith("mine")  # it only pretends to have made one, so nothing else can be said

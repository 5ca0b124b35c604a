"""The ZIP of a release: what is in it, and that it starts."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.release import FOLDER, KEPT, LEFT, ROOT, make_zip, release_files

MOST_BYTES = 50_000_000
DEVELOPERS = ("tests/", "benchmarks/results/", "demo_models/train/", "demo_models/judg", ".ci/", ".git")

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone, so git lists nothing")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The ZIP of the last commit; without the check that nothing has changed since."""
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.release._changed", lambda: "")
        return make_zip(folder)


def test_it_holds_what_people_need_and_no_more(made):
    with zipfile.ZipFile(made) as file:
        names = {name.removeprefix(f"{FOLDER}/") for name in file.namelist()}
        assert all(name.startswith(f"{FOLDER}/") for name in file.namelist())
    assert names >= {"start.bat", "start.sh", "README.md", "LICENSE", "START_HERE.txt", "scripts/uv.txt"}
    assert not [name for name in names if name.startswith(DEVELOPERS) or name in LEFT]
    assert made.stat().st_size < MOST_BYTES


def test_each_line_of_the_rule_is_of_use():
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in (*KEPT, *LEFT):
        assert any(file.startswith(name) for file in files), name


def test_links_of_its_documents_lead_to_files_in_it():
    names = set(release_files())
    for name in (name for name in names if name.endswith(".md") and name != "demo_models/README.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", (ROOT / name).read_text("utf-8")):
            linked = (ROOT / name).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
            assert linked in names, f"{name}: {target}"


def test_batch_files_have_windows_line_ends_and_scripts_are_executable(made):
    with zipfile.ZipFile(made) as file:
        for name in ("start.bat", "environment2.bat", "scripts/get_python.bat", "START_HERE.txt"):
            content = file.read(f"{FOLDER}/{name}")
            assert content.count(b"\r\n") == content.count(b"\n") > 5, name
        assert b"\r" not in file.read(f"{FOLDER}/start.sh")
        mode = file.getinfo(f"{FOLDER}/start.sh").external_attr >> 16
        assert mode & 0o777 == 0o755


def test_the_same_commit_gives_the_same_bytes(made, tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.release._changed", lambda: "")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert make_zip(tmp_path).read_bytes() == made.read_bytes()


def test_what_is_not_committed_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("scripts.release._changed", lambda: " M start.bat")
    with pytest.raises(SystemExit, match="Commit these first"):
        make_zip(tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_module_that_the_app_imports_is_in_it():
    """No module in the ZIP imports one of the app's own packages that is left out."""
    left = r"demo_models\.train", r"demo_models\.judg", "benchmarks", "tests"
    for name in release_files():
        if name.endswith(".py"):
            text = (ROOT / name).read_text("utf-8")
            assert not [
                module for module in left if f"from {module}" in text or f"import {module}" in text
            ], name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there, start.bat does this")
def test_it_unpacks_and_makes_a_video(made, tmp_path):
    subprocess.run(["unzip", "-q", made, "-d", tmp_path], check=True)
    app = tmp_path / FOLDER
    (app / "venv").symlink_to(sys.prefix)  # installing anew would take minutes
    command = ["bash", app / "start.sh", "--demo", "--headless", "examples/hello.json", "--name", "hello"]
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert (app / "webui" / "outputs" / "hello.mp4").stat().st_size > 10_000

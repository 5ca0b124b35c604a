"""Two windows of one app."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.lock import one_at_a_time

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def hold(folder: Path, events: list[str]) -> None:
    with one_at_a_time(folder, lambda: events.append("waiting"), poll_seconds=0.01):
        events.append("held")


def test_a_second_start_waits_and_says_so_once(tmp_path):
    events: list[str] = []
    thread = threading.Thread(target=hold, args=(tmp_path, events))
    with one_at_a_time(tmp_path, lambda: events.append("never")):
        thread.start()
        while not events:
            time.sleep(0.01)
        time.sleep(0.05)
        events.append("first is done")
    thread.join()
    assert events == ["waiting", "first is done", "held"]


def test_other_folders_do_not_wait(tmp_path):
    with one_at_a_time(tmp_path / "one", pytest.fail), one_at_a_time(tmp_path / "two", pytest.fail):
        pass


def test_a_killed_process_releases_the_lock(tmp_path):
    script = (
        f"import sys, tempfile; sys.path.insert(0, {str(ROOT)!r}); tempfile.tempdir = {str(tmp_path)!r}\n"
        f"from pathlib import Path; from scripts.lock import one_at_a_time\n"
        f"with one_at_a_time(Path({str(tmp_path)!r}), print):\n"
        f"    sys.stdout.write('held\\n'), sys.stdout.flush(), input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        waits: list[str] = []
        thread = threading.Thread(target=hold, args=(tmp_path, waits))
        thread.start()
        while not waits:
            time.sleep(0.01)
        holder.kill()
    thread.join(10)
    assert waits == ["waiting", "held"]

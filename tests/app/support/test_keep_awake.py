"""The computer stays awake while a job runs, and no longer."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.app import wait_until
from webui.eichi_utils.download import fetch
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.jobs.runner import JobRunner
from webui.eichi_utils.support.keep_awake import keep_awake

INHIBIT = """#!/bin/sh
echo "$*" > "{note}"
while [ "$1" != cat ]; do shift; done
"$@"
rm "{note}"
"""


@pytest.fixture
def note(tmp_path, monkeypatch) -> Path:
    """A file that is there while a stand-in of systemd-inhibit runs; it holds what that was asked for."""
    program = tmp_path / "systemd-inhibit"
    program.write_text(INHIBIT.format(note=tmp_path / "note"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "note"


@pytest.mark.skipif(sys.platform == "win32", reason="asks Linux")
def test_on_linux_the_inhibitor_runs_during_the_block(note):
    with pytest.raises(KeyError), keep_awake():
        wait_until(note.exists, "the inhibitor runs")
        wait_until(lambda: "--what=sleep:idle" in note.read_text(), "it is asked")
        raise KeyError
    assert not note.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="asks Linux")
def test_the_inhibitor_ends_with_a_process_that_is_killed(note):
    script = "from webui.eichi_utils.support.keep_awake import keep_awake\nwith keep_awake(): input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        wait_until(note.exists, "the inhibitor runs")
        process.kill()
    wait_until(lambda: not note.exists(), "it ends")


@pytest.mark.skipif(sys.platform == "win32", reason="asks Linux")
@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 1\n", "no program"])
def test_where_nothing_can_be_asked_the_block_runs_all_the_same(tmp_path, monkeypatch, script):
    if script is not None:
        (tmp_path / "systemd-inhibit").write_text(script)
        (tmp_path / "systemd-inhibit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = []
    with keep_awake():
        done.append(1)
    assert done


def test_on_windows_the_system_stays_awake_but_not_the_display(windows):
    with pytest.raises(KeyError), keep_awake():
        raise KeyError
    states = [call.args[0] for call in windows.kernel32.SetThreadExecutionState.call_args_list]
    assert states == [0x80000001, 0x80000000]


@pytest.mark.skipif(sys.platform == "win32", reason="asks Linux")
def test_a_job_keeps_the_computer_awake(note):
    def find_models():
        wait_until(note.exists, "the inhibitor runs")
        raise KeyError("no models")
        yield

    runner = JobRunner(SimpleNamespace(find_models=find_models))  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="no models"):
        list(runner(None, None))  # type: ignore[arg-type]
    assert not note.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="asks Linux")
def test_a_download_keeps_the_computer_awake(note, tmp_path, monkeypatch):
    awake, reports = [], []
    monkeypatch.setattr(fetch, "Hub", lambda *_, **__: None)
    monkeypatch.setattr(
        fetch.Fetcher, "fetch_all", lambda *_: awake.append(wait_until(note.exists, "the inhibitor runs"))
    )
    fetch.download(ModelFolders(None, tmp_path / "own", ()), reports.append)
    assert awake == [True]
    assert not note.exists()

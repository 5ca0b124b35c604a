"""The download as the app sees it: in a process of its own, stopped, killed, continued."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import psutil
import pytest

from tests.support.app import wait_until
from tests.support.fake_hub import ALL_BYTES, SHARD, FakeHub, Trouble, files_below, part_sizes
from tests.support.tiny import MODELS
from webui.eichi_utils.download import download as download_module
from webui.eichi_utils.download.download import Download, DownloadView
from webui.eichi_utils.download.model_folders import ModelFolders

HELD_AFTER = 300_000
"""Bytes of the largest file after which the hub holds it."""


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    """The app keeps its own process offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def finish(download: Download) -> DownloadView:
    wait_until(lambda: not download.view().is_running, "it ends")
    return download.view()


def start(hub: FakeHub, folders: ModelFolders, begin: Callable[[], object]) -> threading.Event:
    """Begin a download, and wait until all has come that the hub sends before this is set."""
    go_on = threading.Event()
    hub.trouble[SHARD] = [Trouble(break_after=HELD_AFTER, wait_for=go_on)]
    begin()
    wait_until(lambda: HELD_AFTER in part_sizes(folders.own), "the hub holds it")
    return go_on


def test_the_apps_own_process_makes_no_connection(hub, folders, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the app talks to the network")

    download = Download(folders)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert download.start()
    assert not download.start()
    view = finish(download)
    assert (view.state, view.done_bytes, view.failure) == ("done", ALL_BYTES, None)
    assert files_below(folders.own) == files_below(MODELS)
    assert hub.sent == ALL_BYTES


@pytest.mark.parametrize("end", ["cancel", pytest.param("kill", marks=pytest.mark.slow)])
def test_what_has_come_is_kept_and_continued_after_a_stop_and_a_failure(hub, folders, end):
    download = Download(folders)
    assert not download.cancel()
    go_on = start(hub, folders, download.start)
    assert download.cancel() if end == "cancel" else not download._process.kill()  # type: ignore[union-attr]
    view = finish(download)
    go_on.set()
    assert (view.is_stopping, view.speed, view.file) == (False, None, None)
    failure = view.failure and view.failure.code
    assert (view.state, failure) == (("stopped", None) if end == "cancel" else ("failed", "unexpected"))
    assert download.start()
    assert finish(download).state == "done"
    assert hub.ranges_of(SHARD) == [None, f"bytes={HELD_AFTER}-"]
    assert hub.sent == ALL_BYTES


def test_a_process_that_prints_and_dies_is_a_failure(folders, monkeypatch):
    monkeypatch.setattr(download_module, "MODULE", "this")  # a poem on its standard output, then its end
    download = Download(folders)
    assert download.start()
    failure = finish(download).failure
    assert failure is not None
    assert failure.values["reason"] == "exit status 0"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as only POSIX does")
def test_a_download_ends_with_its_app(hub, folders):
    script = "import sys, time; from pathlib import Path\n"
    script += "from webui.eichi_utils.download.download import Download, ModelFolders\n"
    script += "download = Download(ModelFolders(None, Path(sys.argv[1]))); download.start()\n"
    script += "print(download._process.pid, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(folders.own)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=download_module.ROOT) as app:
        go_on = start(hub, folders, lambda: None)
        process = psutil.Process(int(app.stdout.readline()))  # type: ignore[union-attr]
        app.send_signal(signal.SIGKILL)
    # nobody may collect it in a container
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it ends")
    go_on.set()


def test_the_app_imports_nothing_slow_for_it():
    slow = {"torch", "gradio", "huggingface_hub", "transformers"}
    script = f"import sys, webui.eichi_utils.download.command; sys.exit(bool({slow} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", script], cwd=download_module.ROOT, check=True)

"""The download on the terminal: its lines, and how it ends."""

import errno
import shutil
import signal
import sys
import threading
from unittest.mock import Mock

import pytest

from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN
from tests.support.app import wait_until
from tests.support.fake_hub import SHARD, SHARD_BYTES, Trouble, part_sizes
from tests.support.terminal import Terminal
from tests.support.tiny import MODELS
from webui.eichi_utils.download.command import run_download
from webui.eichi_utils.download.licences import licence_lines
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")


def lines(capsys: pytest.CaptureFixture) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_it_reports_what_is_there_what_comes_and_lost_connections(hub, folders, capsys):
    shutil.copytree(MODELS / FRAMEPACK, folders.caches[0] / FRAMEPACK)
    hub.trouble["vae/config.json"] = [Trouble(break_after=10)]
    assert run_download(folders, WORDS) == 0
    shown = lines(capsys)
    assert shown[0] == f"Found transformer in {folders.caches[0] / FRAMEPACK}. It will be used from there."
    licences = [f"  {text} {address}" for text, address in licence_lines(WORDS)]
    assert shown[1:6] == [WORDS("licence.title"), *licences]
    assert shown[6].startswith("The models are 0.0 GB in all. 0.0 GB will be downloaded to ")
    assert "The connection was lost (the connection ended early). Trying again soon." in shown
    assert f"{HUNYUAN}/vae/config.json (0.0 of 0.0 GB)" in shown
    assert shown[-1] == f"The models are complete ({folders.own})."


def test_a_complete_set_is_checked(hub, folders, capsys):
    shutil.copytree(MODELS, folders.own)
    path = folders.own / FRAMEPACK / SHARD
    path.write_bytes((MODELS / FRAMEPACK / SHARD).read_bytes()[:-1] + b"x")
    assert run_download(folders, WORDS) == 0
    assert hub.sent == SHARD_BYTES
    shown = lines(capsys)
    assert len([line for line in shown if line.startswith("Found ")]) == 5
    assert WORDS("licence.title") not in shown
    assert shown[5] == WORDS("download.checking_all")


@pytest.mark.parametrize(
    ("variables", "status", "sentence"),
    [
        ({}, 1, "{url}/{repository} can only be downloaded after signing in. Open "),
        ({"HF_ENDPOINT": "somewhere"}, 2, 'HF_ENDPOINT is "somewhere", which is not an address. '),
        ({"HF_ENDPOINT": "http://a@127.0.0.1:9"}, 1, "127.0.0.1:9 cannot be reached (Connection refused). "),
        ({"HF_ENDPOINT": "http://[::1"}, 2, 'HF_ENDPOINT is "http://[::1", which is not an address. '),
    ],
)
def test_a_failure_is_one_sentence_and_a_status(
    hub, folders, capsys, monkeypatch, variables, status, sentence
):
    for name, value in (variables | {"HF_HOME": str(folders.own / "empty")}).items():
        monkeypatch.setenv(name, value)
    hub.token = "hf_mine"
    assert run_download(folders, WORDS) == status
    (shown,) = lines(capsys)
    assert shown.startswith(f"Error: {sentence.format(url=hub.url, repository=HUNYUAN)}")


@pytest.mark.usefixtures("hub")
def test_a_disk_that_is_unplugged_is_one_sentence(folders, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    assert run_download(folders, WORDS) == 1
    (shown,) = lines(capsys)
    assert shown.startswith("Error: ")
    assert str(folders.own) in shown


@pytest.mark.slow
def test_ctrl_c_stops_it_and_the_next_run_continues(hub, folders, capsys):
    go_on = threading.Event()
    hub.trouble[SHARD] = [Trouble(break_after=1000, wait_for=go_on)]

    def press() -> None:
        wait_until(lambda: 1000 in part_sizes(folders.own), "the hub holds it")
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press).start()
    before = signal.getsignal(signal.SIGINT)
    assert run_download(folders, WORDS) == 130
    go_on.set()
    assert signal.getsignal(signal.SIGINT) is before
    assert lines(capsys)[-2:] == [WORDS("download.stopping"), WORDS("download.stopped")]
    assert run_download(folders, WORDS) == 0
    assert hub.ranges_of(SHARD) == [None, "bytes=1000-"]


@pytest.mark.usefixtures("hub")
def test_a_terminal_shows_the_progress_on_one_line(folders, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run_download(folders, WORDS) == 0
    shown = terminal.shown()
    assert "100%|" in shown
    assert "6.21M/6.21M" in shown
    assert f"The models are complete ({folders.own})." in shown

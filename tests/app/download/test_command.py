"""The download on the terminal: what it says, how it ends."""

import io
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN
from tests.support.fake_hub import FakeHub, Trouble
from webui.eichi_utils.download.command import run_download
from webui.eichi_utils.download.download import Download, ModelFolders
from webui.eichi_utils.download_hub import Hub
from webui.eichi_utils.text.translations import Translator

MODELS = Path(__file__).parents[2] / "golden" / "models"
SHARD = "diffusion_pytorch_model-00001-of-00006.safetensors"
WORDS = Translator("en")
CANCELLED_AFTER = 20
"""Seconds; nothing here takes so long."""


@pytest.fixture
def hub(monkeypatch) -> Iterator[FakeHub]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with FakeHub(MODELS) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.fixture
def places(tmp_path) -> ModelFolders:
    return ModelFolders(None, tmp_path / "own", (tmp_path / "cache",))


def lines(capsys: pytest.CaptureFixture) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("hub")
def test_it_says_what_comes_and_where_it_is(places, capsys):
    shutil.copytree(MODELS / FRAMEPACK, places.caches[0] / FRAMEPACK)
    assert run_download(places, WORDS) == 0
    said = lines(capsys)
    assert said[0] == f"Found transformer in {places.caches[0] / FRAMEPACK}: it is used as it is."
    assert said[1].startswith("The models have 0.0 GB. 0.0 GB are still to be downloaded to ")
    assert f"{HUNYUAN}/vae/config.json (0.0 of 0.0 GB)" in said
    assert said[-1] == f"The models are complete ({places.own})."


def test_where_all_is_there_it_is_read_once_more(hub, places, capsys):
    assert run_download(places, WORDS) == 0
    sent = hub.sent
    path = places.own / FRAMEPACK / SHARD
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    capsys.readouterr()
    assert run_download(places, WORDS) == 0
    assert hub.sent == sent + path.stat().st_size
    assert path.read_bytes() == (MODELS / FRAMEPACK / SHARD).read_bytes()
    said = lines(capsys)
    assert len([line for line in said if line.startswith("Found ")]) == 5
    assert "read once more" in said[5]


def test_a_broken_line_is_told(hub, places, capsys):
    hub.trouble[SHARD] = [Trouble(break_after=1000)]
    download = Download(places, Hub, (0.2,))
    assert run_download(places, WORDS, download) == 0
    assert "The line broke (the connection ended early); trying again in a moment." in lines(capsys)


def test_a_failure_is_one_sentence_and_status_1(hub, places, capsys):
    hub.token = "hf_mine"
    assert run_download(places, WORDS) == 1
    (said,) = lines(capsys)
    assert said.startswith(f"Error: {hub.url}/{HUNYUAN} lets only known users download; visit ")


def test_a_failure_on_the_way_is_told_too(hub, places, capsys):
    hub.trouble[SHARD] = [Trouble(content=b"<html>")] * 2
    assert run_download(places, WORDS) == 1
    sentence = lines(capsys)[-1]
    assert sentence.startswith(f"Error: {FRAMEPACK}/{SHARD} has 6 bytes at 127.0.0.1:{hub.port} instead of ")


def test_wrong_input_is_status_2(places, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "somewhere")
    assert run_download(places, WORDS) == 2
    (said,) = lines(capsys)
    assert said.startswith('Error: HF_ENDPOINT is "somewhere", which is no address; ')


def test_ctrl_c_ends_it_and_the_next_run_goes_on(hub, places, capsys):
    go_on = threading.Event()
    hub.trouble[SHARD] = [Trouble(break_after=1000, wait_for=go_on)]

    def press() -> None:
        end = time.monotonic() + CANCELLED_AFTER
        while not hub.sent_of(SHARD) and time.monotonic() < end:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)
        go_on.set()

    threading.Thread(target=press).start()
    before = signal.getsignal(signal.SIGINT)
    assert run_download(places, WORDS) == 130
    assert signal.getsignal(signal.SIGINT) is before
    said = lines(capsys)
    assert said[-2:] == [WORDS("download.stopping"), WORDS("download.stopped")]
    assert run_download(places, WORDS) == 0
    assert hub.ranges_of(SHARD) == [None, "bytes=1000-"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("hub")
def test_on_a_terminal_one_line_shows_the_progress(places, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run_download(places, WORDS) == 0
    shown = terminal.getvalue()
    assert "100%|" in shown
    assert "6.21M/6.21M" in shown
    assert f"The models are complete ({places.own})." in shown

"""The client of the hub: listings and bytes as the server gives them, and the meaning of its answers."""

import hashlib
import socket
import ssl
import threading
import time
from email.utils import formatdate
from unittest.mock import Mock

import huggingface_hub
import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN
from tests.support.fake_hub import COMMIT, Trouble, git_blob
from tests.support.tiny import MODELS, VAE_FILE
from webui.eichi_utils.download import hub as hub_module
from webui.eichi_utils.download.hub import ConnectionLost, Hub
from webui.eichi_utils.download.model_folders import RemoteFile

CONTENT = (MODELS / VAE_FILE).read_bytes()
VAE = RemoteFile(HUNYUAN, VAE_FILE.removeprefix(f"{HUNYUAN}/"), len(CONTENT), COMMIT)

STRANGE = [
    b"<html>Log in to the hotel</html>",
    b"[]",
    b'{"id": "a/b", "siblings": [{"rfilename": "a", "size": 1}]}',
    b'{"id": "a/b", "sha": "a/../b", "siblings": [{"rfilename": "a", "size": 1}]}',
    b'{"id": "a/b", "sha": "c0ffee", "siblings": [{"rfilename": "a", "size": "1"}]}',
    b'{"id": "a/b", "sha": "c0ffee", "siblings": [{"rfilename": "a", "size": -1}]}',
    b'{"id": "a/b", "sha": "c0ffee", "siblings": [{"rfilename": "a", "size": 1, "blobId": "../../x"}]}',
    b"\xff",
    b"[" * 100_000,
]
"""Answers that are no listing."""


def read(offset: int = 0) -> bytes:
    return b"".join(Hub().read(VAE, offset))


@pytest.mark.usefixtures("hub")
def test_a_listing_has_sizes_and_checksums():
    files = Hub().list_files(FRAMEPACK)
    assert {file.path for file in files} == {path.name for path in (MODELS / FRAMEPACK).iterdir()}
    for file in files:
        data = (MODELS / FRAMEPACK / file.path).read_bytes()
        is_large = file.path.endswith(".safetensors")
        checksum = hashlib.sha256(data).hexdigest() if is_large else git_blob(data)
        assert file == RemoteFile(FRAMEPACK, file.path, len(data), COMMIT, checksum)


@pytest.mark.parametrize(("offset", "whole"), [(0, False), (1000, False), (1000, True)])
def test_a_file_is_read_from_its_commit_through_the_redirect(hub, offset, whole):
    hub.trouble[f"/store/{VAE_FILE}"] = [
        Trouble(whole=whole)
    ]  # a server without ranges sends again what is skipped
    assert read(offset) == CONTENT[offset:]
    assert hub.asked[0].path == f"/{HUNYUAN}/resolve/{COMMIT}/{VAE.path}"
    assert [asked.range for asked in hub.asked] == [f"bytes={offset}-" if offset else None] * 2


@pytest.mark.parametrize(("content", "offset"), [(b"<html>", 0), (b"<html>", 9), (CONTENT + b"more", 9)])
@pytest.mark.parametrize("num_times", [1, 2])
def test_a_file_of_another_size_is_refused_if_it_comes_twice(hub, content, offset, num_times):
    hub.trouble[f"/store/{VAE_FILE}"] = [Trouble(content=content)] * num_times
    if num_times == 1:
        assert read(offset) == CONTENT[offset:]
        return
    with pytest.raises(MachineError, match="download_wrong_size") as caught:
        read(offset)
    assert caught.value.values["size"] == len(content)


def test_the_token_is_sent_to_the_hub_alone_once_it_asks_for_one(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    Hub().list_files(FRAMEPACK)
    hub.token = "hf_secret"
    client = Hub()
    client.list_files(HUNYUAN)
    assert b"".join(client.read(VAE, 0)) == CONTENT
    assert [(asked.host.partition(":")[0], asked.authorization) for asked in hub.asked] == [
        ("127.0.0.1", None),
        ("127.0.0.1", None),
        ("127.0.0.1", "Bearer hf_secret"),
        ("127.0.0.1", "Bearer hf_secret"),
        ("localhost", None),
    ]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        *((Trouble(status=status), "download_refused") for status in (401, 403)),
        *((Trouble(status=status), "download_not_found") for status in (404, 410)),
        (Trouble(status=451), "download_status"),
        *((Trouble(content=content), "download_strange_answer") for content in STRANGE),
    ],
)
@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_where_no_other_try_can_help_the_answer_has_a_code(hub, monkeypatch, token, answer, code):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.trouble[HUNYUAN] = [answer] * 2
    with pytest.raises(MachineError, match=code) as caught:
        Hub().list_files(HUNYUAN)
    if code in ("download_refused", "download_not_found"):
        assert caught.value.values == {"page": f"{hub.url}/{HUNYUAN}"}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7), ("x", 0), ("99999", 600), (0, 0), (100, 100), (1e9, 600), ("Wed, 21 Oct 1965 07:28:00", 0)],
)
def test_a_busy_server_may_say_how_long_to_wait(hub, status, header, pause):
    header = header if isinstance(header, str) else formatdate(time.time() + header, usegmt=True)
    hub.trouble[HUNYUAN] = [Trouble(status=status, headers={"Retry-After": header})]
    with pytest.raises(ConnectionLost, match=str(status)) as caught:
        Hub().list_files(HUNYUAN)
    assert caught.value.pause == pytest.approx(pause, abs=5)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Trouble(break_after=3000), "reason.ended_early"),
        (Trouble(break_after=3000, wait_for=threading.Event()), "reason.timed_out"),
        (Trouble(status=403), "HTTP 403 Forbidden, localhost"),  # the store's link has expired
    ],
)
def test_bytes_before_a_lost_connection_are_given(hub, monkeypatch, trouble, reason):
    monkeypatch.setattr(hub_module, "TIMEOUT", 0.2)
    hub.trouble[VAE.path] = [trouble]
    stream, pieces = Hub().read(VAE, 0), []
    with pytest.raises(ConnectionLost) as caught:
        while True:
            pieces.append(next(stream))
    if trouble.wait_for is not None:
        trouble.wait_for.set()
    assert b"".join(pieces) == CONTENT[: trouble.break_after or 0]
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("proxy", ["", "http", "socks", "socks5", "socks5h"])
def test_no_server_or_proxy_is_worth_another_try(monkeypatch, proxy):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid" if proxy else f"http://{address}")
    monkeypatch.setenv("ALL_PROXY", proxy and f"{proxy}://{address}/")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/cacert.pem")
    with pytest.raises(ConnectionLost, match=r"^Connection refused$"):
        Hub().list_files(HUNYUAN)


def test_an_untrusted_certificate_is_no_reason_to_wait(hub, monkeypatch):
    error = ssl.SSLCertVerificationError("x")
    error.verify_message = "self-signed certificate"

    of_library = RuntimeError("of a library")
    of_library.__context__ = error
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", Mock(side_effect=of_library))
    with pytest.raises(MachineError) as caught:
        Hub().list_files(HUNYUAN)
    assert caught.value.code == "download_certificate"
    assert caught.value.values == {"host": f"{hub.host}", "reason": "self-signed certificate"}


def test_the_proxy_of_the_environment_is_used(hub, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid/")
    assert Hub().list_files(HUNYUAN)
    assert hub.asked[0].host == "hub.invalid"


@pytest.mark.parametrize("value", ["", "hub.co", "ftp://x", "http://", "http://a b", "http://a:x", "\n"])
def test_an_endpoint_that_is_no_address_is_refused_and_an_empty_one_is_hugging_face(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    if not value:
        assert Hub().host == "huggingface.co"
        return
    with pytest.raises(InputError, match="download_endpoint"):
        Hub()

"""The client: lists and bytes as the hub gives them, and what its answers mean."""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN
from tests.support.fake_hub import COMMIT, FakeHub, Trouble, git_blob
from webui.eichi_utils import download_hub
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download_hub import Hub, LineBroken, WrongSize, user_token

MODELS = Path(__file__).parents[2] / "golden" / "models"
VAE = RemoteFile(
    HUNYUAN,
    "vae/diffusion_pytorch_model.safetensors",
    (MODELS / HUNYUAN / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size,
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(MODELS) as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_settings_of_this_computer(monkeypatch):
    for name in ("HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def client(fake: FakeHub, token: str | None = None, timeout: float = 20) -> Hub:
    return Hub(fake.url, lambda: token, timeout)


def read(hub: Hub, offset: int = 0, file: RemoteFile = VAE) -> tuple[int, bytes]:
    with hub.open(file, COMMIT, offset) as body:
        return body.start, b"".join(iter(body.read, b""))


def content(file: RemoteFile = VAE) -> bytes:
    return (MODELS / file.repository / file.path).read_bytes()


def test_the_list_tells_sizes_and_checksums(hub):
    listing = client(hub).listing(FRAMEPACK)
    files = {file.path: file for file in listing.files}
    assert listing.commit == COMMIT
    assert set(files) == {path.name for path in (MODELS / FRAMEPACK).iterdir()}
    for name, file in files.items():
        data = (MODELS / FRAMEPACK / name).read_bytes()
        large = name.endswith(".safetensors")
        assert file.size == len(data)
        assert file.sha256 == (hashlib.sha256(data).hexdigest() if large else None)
        assert file.blob == (None if large else git_blob(data))


def test_a_file_comes_whole_and_from_its_commit(hub):
    assert read(client(hub)) == (0, content())
    assert hub.asked[0].path == f"/{HUNYUAN}/resolve/{COMMIT}/{VAE.path}"
    assert hub.asked[0].range is None


def test_a_file_comes_from_the_middle_on_through_the_redirect(hub):
    assert read(client(hub), 1000) == (1000, content()[1000:])
    assert [asked.range for asked in hub.asked] == ["bytes=1000-"] * 2


def test_a_server_that_ignores_ranges_begins_at_the_start(hub):
    hub.trouble[VAE.path] = [Trouble(whole=True)]
    assert read(client(hub), 1000) == (0, content())


def test_a_file_of_another_size_is_told(hub):
    hub.trouble[VAE.path] = [Trouble(content=b"<html>"), Trouble(content=bytes(500))]
    with pytest.raises(WrongSize) as caught:
        read(client(hub))
    assert caught.value.size == 6
    with pytest.raises(WrongSize) as caught:
        read(client(hub), 1000)  # HTTP 416
    assert caught.value.size == 500


def test_the_token_is_not_shown_where_it_is_not_needed(hub):
    client(hub, token="hf_secret").listing(HUNYUAN)
    assert [asked.authorization for asked in hub.asked] == [None]


def test_the_token_is_shown_where_it_is_asked_for_but_not_to_the_store(hub):
    hub.token = "hf_secret"
    ours = client(hub, token="hf_secret")
    ours.listing(HUNYUAN)
    read(ours)
    assert [(asked.host.partition(":")[0], asked.authorization) for asked in hub.asked] == [
        ("127.0.0.1", None),
        ("127.0.0.1", "Bearer hf_secret"),
        ("127.0.0.1", "Bearer hf_secret"),
        ("localhost", None),
    ]


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_repository_that_refuses_is_told_with_the_page_to_visit(hub, token):
    hub.token = "hf_secret"
    with pytest.raises(MachineError) as caught:
        client(hub, token).listing(HUNYUAN)
    assert caught.value.code == "download_refused"
    assert caught.value.values == {"page": f"{hub.url}/{HUNYUAN}"}


def test_a_link_of_the_store_that_has_expired_is_worth_another_try(hub):
    hub.trouble[VAE.path] = [Trouble(status=403)]
    with pytest.raises(LineBroken, match="403"):
        read(client(hub))


@pytest.mark.parametrize(("header", "pause"), [("7", 7.0), ("x", None), (None, None), ("99999", 600.0)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_worth_another_try_when_it_says(hub, status, header, pause):
    hub.list_trouble = [Trouble(status=status, headers={"Retry-After": header} if header else {})]
    with pytest.raises(LineBroken, match=str(status)) as caught:
        client(hub).listing(HUNYUAN)
    assert caught.value.pause == pause


def test_a_server_may_say_when_by_a_date(hub):
    date = formatdate(time.time() + 100, usegmt=True)
    hub.list_trouble = [Trouble(status=503, headers={"Retry-After": date})]
    with pytest.raises(LineBroken) as caught:
        client(hub).listing(HUNYUAN)
    assert caught.value.pause == pytest.approx(100, abs=5)


def test_an_unknown_repository_is_told(hub):
    with pytest.raises(MachineError) as caught:
        client(hub).listing("nobody/nothing")
    assert caught.value.code == "download_not_found"
    assert caught.value.values == {"page": f"{hub.url}/nobody/nothing"}


def test_any_other_refusal_is_told_with_its_number(hub):
    hub.list_trouble = [Trouble(status=451)]
    with pytest.raises(MachineError) as caught:
        client(hub).listing(HUNYUAN)
    assert caught.value.code == "download_status"
    assert caught.value.values["status"].startswith("451")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Log in to the hotel</html>",
        b"[]",
        b'{"siblings": []}',
        b'{"sha": "a/../b", "siblings": []}',
        b'{"sha": "c0ffee", "siblings": [{"rfilename": "a", "size": "1"}]}',
        b'{"sha": "c0ffee", "siblings": [{"rfilename": "a", "size": -1}]}',
        b'{"sha": "c0ffee", "siblings": [{"rfilename": "a", "size": 1, "lfs": {"sha256": "x"}}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_list_is_told(hub, answer):
    hub.list_trouble = [Trouble(content=answer)]
    with pytest.raises(MachineError, match="download_strange_answer"):
        client(hub).listing(HUNYUAN)


def test_a_connection_that_ends_early_ends_the_bytes(hub):
    hub.trouble[VAE.path] = [Trouble(break_after=3000)]
    assert read(client(hub)) == (0, content()[:3000])


def test_a_line_that_falls_silent_counts_as_broken(hub):
    forever = threading.Event()
    hub.trouble[VAE.path] = [Trouble(break_after=3000, wait_for=forever)]
    with pytest.raises(LineBroken, match=r"reason\.timed_out"):
        read(client(hub, timeout=0.2))
    forever.set()


def test_no_server_at_all_is_worth_another_try():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LineBroken, match="refused"):
        Hub(f"http://127.0.0.1:{port}").listing(HUNYUAN)


def test_a_server_that_talks_something_else_is_worth_another_try():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(LineBroken):
            Hub(f"http://127.0.0.1:{server.getsockname()[1]}").listing(HUNYUAN)


def test_a_certificate_that_cannot_be_trusted_is_told_at_once(hub, monkeypatch):
    error = ssl.SSLCertVerificationError("x")
    error.verify_message = "self-signed certificate"
    ours = client(hub)

    def fail(*_: object, **__: object) -> None:
        raise download_hub.urllib.error.URLError(error)

    monkeypatch.setattr(ours._opener, "open", fail)
    with pytest.raises(MachineError) as caught:
        ours.listing(HUNYUAN)
    assert caught.value.code == "download_certificate"
    assert caught.value.values == {"host": ours.host, "reason": "self-signed certificate"}


def test_the_endpoint_of_the_environment_is_asked(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    assert Hub().listing(HUNYUAN).commit == COMMIT


def test_without_an_endpoint_it_is_hugging_faces():
    assert Hub().host == "huggingface.co"


def test_the_proxy_of_the_environment_is_asked(hub, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    assert Hub("http://hub.invalid").listing(HUNYUAN).commit == COMMIT
    assert hub.asked[0].host == "hub.invalid"


@pytest.mark.parametrize("value", ["huggingface.co", "ftp://x", "http://", "http://a b", "http://a:x", "\n"])
def test_an_endpoint_that_is_no_address_is_told(value):
    with pytest.raises(InputError, match="download_endpoint"):
        Hub(value)


def test_the_users_token_is_read_where_huggingface_keeps_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert user_token() == "hf_mine"

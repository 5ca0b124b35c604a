"""Starting, refusing to start and ending the server, and its command line."""

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import uvicorn

from diffusers_helper.errors import InputError
from tests.support.app import PATIENCE, ROOT, App, free_port
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, PageClient
from tests.support.page_options import options
from tests.support.page_state import text
from webui.eichi_utils.instance import running_app
from webui.eichi_utils.server.gradio_patches import MAX_CONNECTIONS, _log_failure, survive_resets
from webui.eichi_utils.server.server import CLOSE_SECONDS, run_page
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "matplotlib")


# -- refusing to start -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{"share": True}, *({"server": name} for name in ("0.0.0.0", "::", "192.168.0.7", "my-computer"))],
)
def test_public_server_needs_a_password(tmp_path, capsys, values):
    assert run_page(options(tmp_path / "home", **values), WORDS) == 2
    assert capsys.readouterr().err == f"Error: {WORDS('error.login_needed')}\n"
    assert not (tmp_path / "home").exists()


def test_public_server_warns_its_user(tmp_path, monkeypatch, capsys):
    end = Mock(side_effect=InputError("no_result"))
    monkeypatch.setattr("webui.eichi_utils.server.server._check_port", end)
    monkeypatch.setattr("webui.eichi_utils.server.server.running_app", lambda *_: None)
    failed = WORDS("failed", reason=WORDS("error.no_result"))
    for values, warnings in (
        ({"share": True}, [WORDS("page.warning_share")]),
        ({"server": "0.0.0.0"}, [WORDS("page.warning_network", server="0.0.0.0")]),
        ({}, []),
    ):
        assert run_page(options(tmp_path, login=("mia", "password"), **values), WORDS) == 2
        assert capsys.readouterr().err.splitlines() == [*warnings, failed]


BIND_ERRORS = [
    ("address_not_here", {"server": "192.0.2.77"}, OSError(errno.EADDRNOTAVAIL, "")),
    ("address_not_here", {"server": "::1"}, OSError(errno.EAFNOSUPPORT, "")),
    ("address_not_here", {"server": "fe80::1"}, OSError(errno.EINVAL, "")),
    ("address_not_here", {"server": "224.0.0.1"}, None),
    ("address_not_here", {"server": "ff02::1"}, None),
    ("address_not_here", {"server": "255.255.255.255"}, None),
    ("address_unknown", {"server": "no-such-host.invalid"}, socket.gaierror(-2, "")),
    ("address_unknown", {"server": "a..b"}, UnicodeError("label empty or too long")),
    ("port_forbidden", {}, PermissionError(errno.EACCES, "")),
    ("port_taken", {}, None),
]


@pytest.mark.parametrize(("code", "values", "error"), BIND_ERRORS)
def test_an_address_that_cannot_be_had_is_refused(tmp_path, monkeypatch, capsys, code, values, error):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        page = options(tmp_path / "home", login=("mia", "password"), port=other.getsockname()[1], **values)
        if error is not None:
            monkeypatch.setattr(socket.socket, "bind", Mock(side_effect=error))
        assert run_page(page, WORDS) == 1
    sentence = WORDS(f"error.{code}", **values or {"port": page.port})
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {sentence}"
    assert not (tmp_path / "home").exists(), "nothing was loaded or written"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
ANSWERS = [OK % (len(body), body) for body in (b"[]", b"null", b'{"app": "another"}', b"\xff\xfe\x00")]
ANSWERS += [OK % (900, b"{"), b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"]
ANSWERS += [b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n"]
ANSWERS += [b"SSH-2.0-OpenSSH_9.2\r\n", b"", OK % (9999, b"[" * 9999)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_other_program_on_the_port_is_not_this_app(answer):
    with socket.create_server(("127.0.0.1", 0)) as other:
        thread = threading.Thread(target=_answer_once, args=(other, answer))
        thread.start()
        assert running_app("127.0.0.1", other.getsockname()[1]) is None
        thread.join()


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(answer)


def test_the_log_of_what_gradio_refuses_holds_nothing_of_what_was_sent(caplog):
    for error in (ValueError("SECRETprompt"), UnicodeError("Cannot move /x/SECRETprompt")):
        try:
            raise error
        except ValueError:
            _log_failure()
        record = caplog.records[-1].getMessage()
        assert type(error).__name__ in record
        assert "test_server.py" in record
    assert "SECRET" not in caplog.text


PRINTING = """
import sys, traceback
from pathlib import Path
from webui.eichi_utils.server.gradio_patches import import_gradio_fast, patch_gradio
from webui.eichi_utils.text.translations import Translator

import_gradio_fast()
patch_gradio(Translator("en"))
for name, module in sorted(sys.modules.items()):
    if name.startswith("gradio.") and getattr(module, "traceback", None) is traceback:
        if "traceback.print_exc()" in Path(module.__file__).read_text("utf-8"):
            print(name)
print(sys.modules["gradio.networking"].url_ok("http://127.0.0.1:1/"))
"""


def test_no_part_of_gradio_prints_what_was_sent_or_gives_its_own_page_three_seconds():
    printing = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    *found, is_patient = printing.stdout.split()
    assert found in ([], ["gradio.screen_recording_utils"]), "that one has its path blocked"
    assert is_patient == "True", "a busy computer takes longer"


def test_on_windows_the_page_takes_the_loop_that_survives_a_reset_connection(monkeypatch):
    monkeypatch.setattr("uvicorn.loops.asyncio.asyncio_loop_factory", lambda **_: None)
    monkeypatch.setattr("sys.platform", "win32")
    survive_resets()
    assert uvicorn.Config("", loop="asyncio").get_loop_factory() is asyncio.SelectorEventLoop


# -- starting and ending -----------------------------------------------------------------------------

LOOK_AT_THE_PAGE = """
import json, os, pytest, sys, urllib.request
from pathlib import Path
import webui.endframe_ichi
from webui.eichi_utils.server.server import serving
from tests.support.page_options import options
print("gradio" in sys.modules)
before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy", "https_proxy", "SSL_CERT_FILE")}
with serving(options(Path(sys.argv[1]))) as (app, url):
    with pytest.raises(sys.modules["gradio"].Error):  # before that computer is asked
        sys.modules["gradio"].utils.is_static_file("//host/share/a.png")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("", "config", "ichi/hello", "theme.css"):
        with opener.open(url + path) as answer:
            assert answer.status == 200
            answer.read()
    with opener.open(url + "ichi/events?lang=ja") as answer:
        assert answer.readline().startswith(b"data: ")
    assert before == {name: os.environ.get(name) for name in before}, "downloads need them"
    print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


NETWORKS = [{}, {"ALL_PROXY": "socks5://127.0.0.1:1080", "no_proxy": "127.0.0.0/8,::1/128"}]
NETWORKS += [{"https_proxy": "socks://what?", "NO_PROXY": "[::1],ホスト", "WEB_CONCURRENCY": "x"}]
NETWORKS += [dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"), "/nonexistent/x")]


@pytest.mark.parametrize(
    "variables", [NETWORKS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in NETWORKS[1:])]
)
def test_page_is_served_without_heavy_imports_whatever_the_network_is(tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp" / "app.json").write_text("[" * 99_999)  # damaged
    program = [sys.executable, "-c", LOOK_AT_THE_PAGE, str(tmp_path), *HEAVY]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.splitlines()[-2:] == ["False", "[]"], done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there, a process cannot be asked to end from outside")
def test_app_ends_at_once_though_pages_listen(tmp_path):
    app = App(tmp_path, environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings()
    settings = tmp_path / "settings" / "app_settings.json"
    settings.write_text("broken", "utf-8")
    app.start()
    assert running_app("127.0.0.1", app.port) == running_app("0.0.0.0", app.port) == app.url
    assert running_app("127.0.0.1", free_port()) is None
    with PageClient(app.url) as page:
        kept = "app_settings.broken-1.json"
        assert text(page.open().message) == WORDS("notice.file_set_aside", path=settings, kept=kept)
        assert page.open().message == "", "each notice is shown once"
    _connect_silently(app)
    with (
        httpx.Client(base_url=app.url, trust_env=False, timeout=PATIENCE) as client,
        contextlib.ExitStack() as pages,
    ):
        for _ in range(3):
            stream = pages.enter_context(client.stream("GET", "ichi/events?lang=en"))
            assert next(stream.iter_lines()).startswith("data: ")
        begun = time.monotonic()
        app.stop()
        assert time.monotonic() - begun < CLOSE_SECONDS
    assert "Closing." in app.said()


def _connect_silently(app: App) -> None:
    """Open more connections than the app keeps, with half a request each: who asks is answered."""
    with contextlib.ExitStack() as silent:
        page = silent.enter_context(socket.create_connection(("127.0.0.1", app.port), PATIENCE))
        page.sendall(b"GET /ichi/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert page.recv(12) == b"HTTP/1.1 200"
        opened = []
        for _ in range(MAX_CONNECTIONS + 30):
            opened.append(silent.enter_context(socket.create_connection(("127.0.0.1", app.port), PATIENCE)))
            opened[-1].sendall(b"GET / HTTP/1.1\r\nX-a: ")
        assert running_app("127.0.0.1", app.port) == app.url
        with contextlib.suppress(ConnectionResetError):
            assert opened[0].recv(1) == b"", "the oldest has ended"
        opened[-1].sendall(b"x\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert opened[-1].recv(12) == b"HTTP/1.1 200"
        page.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                assert page.recv(2**20), "a page that listens is older, and stays"


@pytest.mark.slow
def test_a_flood_of_connections_leaves_a_job_its_files(tmp_path):
    resource = pytest.importorskip("resource")
    app = App(tmp_path, environment=ENGLISH_WITHOUT_SCREEN)
    app.start()
    resource.prlimit(app.pid, resource.RLIMIT_NOFILE, (600, 600))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    most = 0
    try:
        with contextlib.ExitStack() as silent:
            flood = [silent.enter_context(socket.socket()) for _ in range(1300)]
            for client in flood:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", app.port))
            end = time.monotonic() + 8
            while time.monotonic() < end:
                for client in flood:
                    with contextlib.suppress(OSError):
                        client.send(b"GET / HTTP/1.1\r\nX-a: ")
                most = max(most, len([*Path(f"/proc/{app.pid}/fd").iterdir()]))
            assert running_app("127.0.0.1", app.port) == app.url
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        app.stop()
    assert most > MAX_CONNECTIONS, "there was a flood"
    assert "Too many open files" not in app.said() + "".join(
        path.read_text("utf-8") for path in (tmp_path / "logs").iterdir()
    )


@pytest.mark.skipif(not socket.has_ipv6, reason="this system has no IPv6")
def test_page_is_served_on_ipv6(tmp_path):
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        app = App(tmp_path, "--server", "::1", environment=ENGLISH_WITHOUT_SCREEN)
        app.url = f"http://[::1]:{app.port}/"
        app.start()
        assert running_app("::1", app.port) == app.url
        app.stop()
        return
    pytest.skip("IPv6 is switched off")

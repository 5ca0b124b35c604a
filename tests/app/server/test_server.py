"""Starting, refusing to start and ending the server, and its command line."""

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import httpx
import pytest
import uvicorn

from diffusers_helper.errors import InputError
from tests.support.app import PATIENCE, ROOT, App, free_port
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, LOGIN, PageClient
from tests.support.page_options import options
from tests.support.page_state import text
from webui.eichi_utils.instance import running_app
from webui.eichi_utils.server.gradio_patches import survive_resets
from webui.eichi_utils.server.server import CLOSE_SECONDS, run_page
from webui.eichi_utils.text.translations import LANGUAGES, Translator
from webui.endframe_ichi import parse_arguments

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


def test_on_windows_the_page_takes_the_loop_that_survives_a_reset_connection(monkeypatch):
    monkeypatch.setattr("uvicorn.loops.asyncio.asyncio_loop_factory", lambda **_: None)
    monkeypatch.setattr("sys.platform", "win32")
    survive_resets()
    assert uvicorn.Config("", loop="asyncio").get_loop_factory() is asyncio.SelectorEventLoop


WRONG = ["--login=mia", "--login=mia:short", "--login=:longenough", "--port=0", "--port=65536", "--port=x"]
WRONG += ["--port=-1", "--port=\u0663", "--lang=de"]


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_command_line_is_refused(argument, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments([argument])
    assert caught.value.code == 2
    assert parse_arguments(["--login", LOGIN]).login == ("mia", "p\u00e4ssword:1"), "at the first colon"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chosen_by", ["option", "system"])
def test_help_and_errors_are_in_the_users_language(language, chosen_by, monkeypatch, capsys):
    names = {"ja": "ja_JP.UTF-8", "en": "en_US.UTF-8", "zh-tw": "zh_TW.UTF-8"}
    monkeypatch.setenv("LC_ALL", names[language] if chosen_by == "system" else "C")
    options = [] if chosen_by == "system" else [f"--lang={language}"]
    words = Translator(language)
    for arguments, key in ((["--help"], "cli.description"), (["--port", "0"], "cli.port_wrong")):
        with pytest.raises(SystemExit):
            parse_arguments([*arguments, *options])
        shown = "".join(capsys.readouterr())
        assert words(key, value="0") in " ".join(shown.split()), key


def test_headless_errors_are_in_english(monkeypatch, capsys):
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    with pytest.raises(SystemExit):
        parse_arguments(["--headless", "cat.json", "--vram-gb", "x"])
    assert WORDS("cli.vram_gb_wrong", value="x") in capsys.readouterr().err


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


@pytest.mark.parametrize("variables", NETWORKS)
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
    assert "Ending." in app.said()


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

"""The server as others on the network meet it: what it hands out, to whom, and what it refuses to be."""

import base64
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.app import PATIENCE, ROOT, App, free_port
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, LOGIN, META, PageClient
from tests.support.page_options import options
from webui.eichi_utils.instance import running_app
from webui.eichi_utils.server.server import CLOSE_SECONDS, run_page
from webui.eichi_utils.text.translations import LANGUAGES, Translator
from webui.endframe_ichi import parse_arguments

WORDS = Translator("en")
SECRET = "nobody may read this"
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "matplotlib")


class AttackedApp(App):
    """Gradio tells the terminal of what it refuses; that is no trouble of the app."""

    def said(self) -> str:
        return "\n".join(line for line in super().said().splitlines() if "Traceback" not in line)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("app")
    for name in ("outputs/private.mp4", "presets/x.json", "cache/x", "outputs/private.png"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(SECRET, "utf-8")
    app = AttackedApp(home, environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings(prompt=SECRET)
    app.start()
    yield app
    app.stop()


def ask(app: App, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Ask for exactly this path: nothing tidies it up on the way."""
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


# -- files of this computer --------------------------------------------------------------------------


def hidden_files(app: App) -> list[Path]:
    names = ("settings/app_settings.json", "outputs/private.mp4", "outputs/private.png", "presets/x.json")
    names = (*names, "cache/x", "app.log", "temp/app.lock", "temp/app.json")
    return [Path("/etc/passwd"), ROOT / "webui" / "endframe_ichi.py", *(app.home / name for name in names)]


def relative_to(folder: Path, path: Path) -> str:
    """The way from a folder to a file; on Windows there may be none from one drive to another."""
    with contextlib.suppress(ValueError):
        return os.path.relpath(path, folder)
    return str(path)


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"])
def test_gradio_hands_out_no_file_that_was_not_uploaded(app, route):
    uploads = app.home / "temp" / "uploads"
    for path in hidden_files(app):
        relative = relative_to(uploads, path)
        ways = [str(path), f"{uploads}/{relative}", relative, relative_to(ROOT, path), f"file://{path}"]
        ways += [way.replace("..", "%2e%2e") for way in ways] + [way.replace("/", "%2f") for way in ways]
        ways += [way.replace("%2f", "%252f") for way in ways if "%2f" in way]
        for way in ways:
            status, content = ask(app, f"{route}{way}")
            assert status in (400, 403, 404), (way, content[:100])
            assert SECRET.encode() not in content


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../../../../../../../etc/passwd",
        "/svelte/../../../../../../../../etc/passwd",
        "/custom_component/../../../etc/passwd/x/y/z",
        "/gradio_api/stream/../../../etc/passwd",
        "/ichi/../../../../etc/passwd",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/proxy=file:///etc/passwd",
        "/webui/endframe_ichi.py",
        "/settings/app_settings.json",
        "/outputs/private.mp4",
        "/docs",
        "/redoc",
        "/monitoring",
        "/gradio_api/mcp/sse",
    ],
)
def test_no_other_address_hands_out_a_file_or_more_than_it_must(app, path):
    status, content = ask(app, path)
    assert status in (400, 403, 404, 405), content[:100]
    assert b"root:" not in content
    assert SECRET.encode() not in content


def test_an_upload_can_be_seen_by_the_page_and_is_no_web_page(app, cat, tmp_path):
    with PageClient(app.url) as page:
        picture = page.http.get(f"gradio_api/file={page.upload(cat)['path']}")
        assert (picture.status_code, picture.content) == (200, cat.read_bytes())
        for name in ("evil.html", "evil.svg", "evil.xml", "evil.js", "evil"):
            evil = tmp_path / name
            evil.write_text("<html><script>alert(1)</script></html>", "utf-8")
            answer = page.http.get(f"gradio_api/file={page.upload(evil)['path']}")
            assert answer.headers["content-disposition"].startswith("attachment"), name


@pytest.mark.parametrize(
    "name", ["../../outside.png", "..\\..\\outside.png", "/tmp/outside.png", "a/../../../b.png"]
)
def test_an_upload_cannot_choose_where_it_lies(app, cat, name):
    with PageClient(app.url) as page:
        stored = Path(page.upload(cat, name)["path"])
    assert stored.resolve().is_relative_to((app.home / "temp" / "uploads").resolve())


@pytest.mark.parametrize("place", ["start-image", "end-image", "inbox"])
def test_gradio_itself_refuses_a_path_that_comes_as_an_upload(app, cat, place):
    file = {"path": str(cat), "meta": META}
    with PageClient(app.url) as page:
        page.open()
        with pytest.raises(AssertionError, match="was not uploaded by a user"):
            page.choose(place, [file] if place == "inbox" else file)


# -- hosts and other web pages -----------------------------------------------------------------------

EVERYWHERE = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/ichi/events"),
    ("GET", "/ichi/hello"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/startup-events"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/call/generate"),
    ("POST", "/ichi/jobs/0123456789abcdef/stop"),
    ("GET", "/theme.css"),
    ("OPTIONS", "/gradio_api/queue/join"),
]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
def test_a_foreign_name_of_this_computer_is_refused_everywhere(app, method, path):
    for host in ("evil.example", f"evil.example:{app.port}", "192.168.0.7"):
        assert ask(app, path, method, Host=host) == (400, b"Invalid host header")


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
def test_another_web_page_is_refused_everywhere(app, method, path):
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{app.port + 1}"):
        assert ask(app, path, method, Origin=origin) == (403, b"")


def test_the_page_itself_is_answered(app):
    for host in (f"127.0.0.1:{app.port}", f"localhost:{app.port}"):
        assert ask(app, "/", Host=host, Origin=f"http://{host}")[0] == 200


# -- the password ------------------------------------------------------------------------------------


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
def test_nothing_is_answered_without_the_password(locked, method, path):
    expected = 200 if path == "/gradio_api/startup-events" else 401
    for headers in ({}, basic("mia:wrong"), basic(LOGIN + "x")):
        assert ask(locked, path, method, **headers)[0] == expected


def test_what_is_open_tells_nothing(locked):
    assert ask(locked, "/gradio_api/startup-events")[1] in (b"true", b"false")


def test_with_the_password_all_works(locked, cat):
    with PageClient(locked.url, basic(LOGIN)) as page:
        page.open()
        assert page.choose("start-image", page.upload(cat)) == ""
        assert page.http.get("ichi/hello").json()["app"] == "endframe-ichi"
        assert page.http.get(f"gradio_api/file={page.shown['start-image']['path']}").status_code == 200
        stored = page.shown["start-image"]["path"]
    assert ask(locked, f"/gradio_api/file={stored}")[0] == 401


# -- refusing to start -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"share": True},
        {"server": "0.0.0.0"},
        {"server": "::"},
        {"server": "192.168.0.7"},
        {"server": "my-computer"},
    ],
)
def test_nothing_is_served_to_others_without_a_password(tmp_path, capsys, values):
    assert run_page(options(tmp_path / "home", **values), WORDS) == 2
    said = capsys.readouterr().err
    assert said == f"Error: {WORDS('error.login_needed')}\n"
    assert not (tmp_path / "home").exists()


def test_a_port_that_another_program_has_is_named(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        threading.Thread(target=_hang_up, args=(other,), daemon=True).start()
        assert run_page(options(tmp_path / "home", port=port), WORDS) == 1
    assert capsys.readouterr().err == f"Error: {WORDS('error.port_taken', port=port)}\n"
    assert not (tmp_path / "home").exists(), "nothing was loaded or written"


def _hang_up(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.accept()[0].close()


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"app": "another"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\x00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
)
def test_another_program_on_the_port_is_not_taken_for_this_app(said):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        thread = threading.Thread(target=_say_once, args=(other, said))
        thread.start()
        assert running_app("127.0.0.1", other.getsockname()[1]) is None
        thread.join()


def _say_once(server: socket.socket, said: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(said)


def test_a_second_start_finds_the_first(app):
    assert running_app("127.0.0.1", app.port) == running_app("0.0.0.0", app.port) == app.url
    assert running_app("127.0.0.1", free_port()) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--login", "mia"],
        ["--login", "mia:short"],
        ["--login", ":longenough"],
        ["--port", "0"],
        ["--port", "65536"],
        ["--port", "x"],
        ["--port", "-1"],
        ["--port", "\u0663"],
        ["--lang", "de"],
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_done(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("told_by", ["option", "system"])
def test_help_and_what_is_wrong_are_told_in_the_users_language(language, told_by, monkeypatch, capsys):
    names = {"ja": "ja_JP.UTF-8", "en": "en_US.UTF-8", "zh-tw": "zh_TW.UTF-8"}
    monkeypatch.setenv("LC_ALL", names[language] if told_by == "system" else "C")
    options = [] if told_by == "system" else [f"--lang={language}"]
    words = Translator(language)
    for arguments, key in ((["--help"], "cli.description"), (["--port", "0"], "cli.port_wrong")):
        with pytest.raises(SystemExit):
            parse_arguments([*arguments, *options])
        said = "".join(capsys.readouterr())
        assert words(key, value="0") in " ".join(said.split()), key


def test_programs_that_make_videos_are_answered_in_english(monkeypatch, capsys):
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    with pytest.raises(SystemExit):
        parse_arguments(["--headless", "cat.json", "--vram-gb", "x"])
    assert Translator("en")("cli.vram_gb_wrong", value="x") in capsys.readouterr().err


def test_a_login_is_a_name_and_all_behind_the_first_colon():
    assert parse_arguments(["--login", LOGIN]).login == ("mia", "p\u00e4ssword:1")


# -- starting and ending -----------------------------------------------------------------------------

LOOK_AT_THE_PAGE = """
import json, sys, urllib.request
sys.path.insert(0, {root!r})
from pathlib import Path
import webui.endframe_ichi
from webui.eichi_utils.app import PageOptions
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.server.server import serving
home = Path({home!r})
engine = EngineOptions(Path({models!r}), home / "cache", "cpu", None, home / "hf_download")
with serving(PageOptions("127.0.0.1", {port}, False, False, "en", None, home, None, engine)) as (app, url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
    for path in ("", "config", "ichi/hello", "theme.css"):
        with opener.open(url + path) as answer:
            assert answer.status == 200
            answer.read()
    with opener.open(url + "ichi/events?lang=ja") as answer:
        assert answer.readline().startswith(b"data: ")
    print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def test_the_page_is_served_without_importing_anything_heavy(tmp_path):
    script = LOOK_AT_THE_PAGE.format(
        root=str(ROOT), home=str(tmp_path), models=str(tmp_path), port=free_port(), heavy=HEAVY
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, encoding="utf-8", check=False
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr


def test_importing_the_app_imports_no_gradio():
    script = (
        "import sys, webui.endframe_ichi, webui.eichi_utils.server.server; print('gradio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    assert done.stdout == "False\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there, a process cannot be asked to end from outside")
def test_the_app_ends_at_once_though_pages_listen(tmp_path):
    app = App(tmp_path, environment=ENGLISH_WITHOUT_SCREEN)
    app.start()
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
def test_the_page_can_be_served_on_ipv6(tmp_path):
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        app = App(tmp_path, "--server", "::1", environment=ENGLISH_WITHOUT_SCREEN)
        app.url = f"http://[::1]:{app.port}/"
        app.start()
        assert running_app("::1", app.port) == app.url
        app.stop()
        return
    pytest.skip("IPv6 is switched off")

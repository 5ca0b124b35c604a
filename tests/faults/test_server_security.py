"""The running app against other web pages and other people: what they send is refused, what they ask for is
not handed out, and the page itself works on."""

import base64
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusers_helper.errors import InputError
from tests.support.app import PATIENCE, ROOT, SMALL, App, free_port, wait_until
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, LOGIN, META, PageClient
from tests.support.page_options import options
from tests.support.wire import MULTIPART, ask, form
from webui.eichi_utils.server.server import run_page
from webui.eichi_utils.text.translations import LANGUAGES, Translator

SECRET = "nobody may read this"
JSON = {"Content-Type": "application/json"}
OWN_HEADER = {"X-Endframe-Ichi": "1"}
NOBODYS = "0123456789abcdef"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("app")
    for name in ("outputs/private.mp4", "outputs/private.html", "presets/x.json", "cache/x"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(SECRET, "utf-8")
    app = App(home, environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings(prompt=SECRET, **SMALL)
    app.start()
    yield app
    app.stop()


# -- other web pages ---------------------------------------------------------------------------------

CALL = json.dumps({"data": [None, "A cat.", 1, None, None]}).encode()
JOIN = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode()
UPLOAD = b"".join(form(b"a.png", [b"x"]))
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TEXT = {"Content-Type": "text/plain"}
CHANGING: list[tuple[str, bytes, dict[str, str]]] = [
    ("/gradio_api/upload", UPLOAD, MULTIPART),
    *(
        (path, body, kind)
        for path, body in (
            ("/gradio_api/call/generate", CALL),
            ("/gradio_api/call/stop", CALL),
            ("/gradio_api/call/v2/generate", b"{}"),
            ("/gradio_api/run/generate", CALL),
            ("/gradio_api/run/queue", CALL),
            ("/gradio_api/api/generate", CALL),
            ("/gradio_api/queue/join", JOIN),
            ("/gradio_api/cancel", b"{}"),
            ("/gradio_api/reset", b"{}"),
            (f"/ichi/jobs/{NOBODYS}/stop", b""),
            (f"/ichi/jobs/{NOBODYS}/remove", b""),
            ("/ichi/download/start", b""),
        )
        for kind in (JSON, TEXT, FORM, MULTIPART)
    ),
]
"""Whatever changes something, as a page of another site can send it: with a form, or by a script."""


def foreign(app: App) -> list[dict[str, str]]:
    """How a browser marks what comes from elsewhere."""
    here = f"http://127.0.0.1:{app.port}"
    origins = ["http://evil.example", "null", f"http://127.0.0.1:{app.port + 1}", "http://[::1]", "file://"]
    origins += [
        f"http://localhost:{app.port}",
        f"{here}.evil.example",
        "",
        f"http://evil.example@127.0.0.1:{app.port}",
    ]
    sites: list[dict[str, str]] = [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")]
    navigations = [site | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"} for site in sites]
    lies = [{"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}]
    return [*({"Origin": origin} for origin in origins), *sites, *navigations, *lies]


def test_another_web_page_changes_nothing_however_it_sends(app):
    before = len([*(app.home / "temp" / "uploads").rglob("*")])
    for path, body, kind in CHANGING:
        for mark in foreign(app):
            assert ask(app, path, "POST", body, **kind, **mark, **OWN_HEADER) == (403, b""), (
                path,
                kind,
                mark,
            )
    assert len([*(app.home / "temp" / "uploads").rglob("*")]) == before
    status, answer = ask(app, "/gradio_api/run/queue", "POST", b'{"data": []}', **JSON)
    assert (status, json.loads(answer)["data"]) == (200, [[]]), "a program of this computer is answered"


def test_another_web_page_reads_nothing(app):
    for path in ("/config", "/ichi/events", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"):
        for mark in foreign(app):
            assert ask(app, path, **mark) == (403, b""), (path, mark)


def test_a_link_from_elsewhere_opens_the_page(app):
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    status, page = ask(app, "/", **navigation)
    assert status == 200
    assert b"<html" in page
    assert ask(app, "/", **navigation | {"Sec-Fetch-Dest": "iframe"})[0] == 403


def test_no_browser_shows_the_page_in_another_page(app, cat):
    with PageClient(app.url) as page:
        uploaded = page.upload(cat)["path"]
        for path in ("", "config", "ichi/hello", f"gradio_api/file={uploaded}", "nothing"):
            headers = page.http.get(path).headers
            assert headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("localhost", 200),
        ("[::1]:{port}", 200),
        ("localhost.:{port}", 400),
        ("localhost.evil.example", 400),
        ("evil.example:{port}", 400),
        ("[::ffff:7f00:1]:{port}", 400),
        ("[fe80::1]", 400),
        ("127.0.0.1@evil.example", 400),
        ("evil.example/127.0.0.1", 400),
        ("2130706433", 400),
        ("", 400),
    ],
)
def test_only_this_computers_own_names_are_answered(app, host, status):
    for path in ("/ichi/hello", "/config"):
        assert ask(app, path, Host=host.format(port=app.port))[0] == status
    refused = ask(app, f"/ichi/jobs/{NOBODYS}/stop", "POST", Host="evil.example", **OWN_HEADER)
    assert refused == (400, b"Invalid host header")


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_who_names_no_host_gets_nothing(app, request_):
    assert raw(app, request_).split(b"\r\n")[0].split()[1] == b"400"


def test_two_hosts_at_once_open_nothing(app):
    hosts = f"Host: 127.0.0.1:{app.port}\r\nHost: evil.example\r\n"
    for lines in (hosts, "".join(reversed(hosts.splitlines(keepends=True)))):
        answer = raw(app, f"GET /config HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
        assert answer.split()[1] == b"400", "which of them counts, nobody knows"


def raw(app: App, request: bytes) -> bytes:
    """The whole answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_it_listens_on_this_computer_only(app):
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, app.port), timeout=5).close()
    if Path("/proc/net/tcp").exists():
        port = f":{app.port:04X}"
        lines = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines())
        assert {line[1] for line in lines if line[1].endswith(port) and line[3] == "0A"} == {
            f"0100007F{port}"
        }


# -- files of this computer --------------------------------------------------------------------------


def hidden(app: App) -> list[Path]:
    names = ("settings/app_settings.json", "outputs/private.mp4", "outputs/private.html", "presets/x.json")
    names = (*names, "cache/x", "app.log", "logs/endframe_ichi.log", "temp/app.json")
    return [Path("/etc/passwd"), ROOT / "webui" / "endframe_ichi.py", *(app.home / name for name in names)]


def test_no_file_is_handed_out_by_any_route(app):
    for path in hidden(app):
        assert path.exists()
        ways = [str(path), f"file://{path}", os.path.relpath(path, ROOT), str(path).replace("/", "\\")]
        ways += [f"{app.home}/temp/uploads/../../{os.path.relpath(path, app.home)}"]
        ways += [way.replace("/", "%2f").replace(".", "%2e") for way in ways]
        for route in (
            "/gradio_api/file=",
            "/gradio_api/file/",
            "/file=",
            "/gradio_api/proxy=",
            "/static/",
            "/assets/",
        ):
            for way in ways:
                status, content = ask(app, route + way.replace(" ", "%20"))
                assert status in (400, 403, 404), (route, way)
                assert SECRET.encode() not in content
                assert b"root:" not in content


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links")
def test_links_lead_nowhere(app):
    uploads = app.home / "temp" / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    for place in (uploads, app.outputs):
        (place / "link.png").symlink_to("/etc/passwd")
        (place / "links").symlink_to(app.outputs)
    for path in ("link.png", "links/private.mp4"):
        for place in (uploads, app.outputs):
            status, content = ask(app, f"/gradio_api/file={place / path}")
            assert (status, content) == (404, b"")
    with PageClient(app.url) as page:
        page.open()
        for path in ("link.png", "links/private.mp4"):
            said = chosen(page, "start-image", str(uploads / path))
            assert SECRET not in said
            assert "does not exist" in said or "was not uploaded" in said


def chosen(page: PageClient, place: str, path: str) -> str:
    """What the page or gradio says of a path that comes as an upload."""
    file = {"path": path, "meta": META, "url": path}
    try:
        return page.choose(place, [file] if place == "inbox" else file)
    except AssertionError as error:
        return str(error)


def test_html_and_svg_in_the_uploads_run_nothing(app, tmp_path):
    script = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    with PageClient(app.url) as page:
        for name in ("a.svg", "a.html", "a.xhtml", "a.xml", "a.js", "a.png", "a.pdf", "a"):
            file = tmp_path / name
            file.write_text(script, "utf-8")
            answer = page.http.get(f"gradio_api/file={page.upload(file)['path']}")
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]
            is_inline = answer.headers["content-disposition"].startswith("inline")
            assert is_inline == (name == "a.png"), "a picture that holds no picture shows nothing"
            assert "html" not in answer.headers["content-type"]
            assert "svg" not in answer.headers["content-type"]


# -- addresses that the app is made to fetch ---------------------------------------------------------


@pytest.fixture
def visited() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that nobody may visit, and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        end = threading.Event()

        def listen() -> None:
            while not end.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    asked.append(connection.recv(1000))

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png", asked
        end.set()
        thread.join()


def test_the_app_fetches_nothing_from_an_address_that_somebody_names(app, visited):
    url, asked = visited
    public = "http://93.184.215.14/a.png"  # gradio itself refuses private addresses only
    values = [{"path": address, "url": address, "meta": META} for address in (url, public)]
    with PageClient(app.url) as page:
        page.open()
        for value in values:
            for place in ("start-image", "end-image", "inbox"):
                assert "does not exist" in chosen(page, place, value["path"])
            for endpoint in ("call", "run"):
                body = json.dumps({"data": [value, "A cat.", 1, None, None]}).encode()
                status, said = ask(app, f"/gradio_api/{endpoint}/generate", "POST", body, **JSON)
                if endpoint == "call":
                    event = json.loads(said)["event_id"]
                    status, said = ask(app, f"/gradio_api/call/generate/{event}")
                assert b"does not exist" in said, (status, said)
            assert ask(app, f"/gradio_api/file={value['path']}") == (404, b"")
            assert ask(app, f"/gradio_api/proxy={value['path']}") == (404, b"")
    assert asked == []


# -- who has no password -----------------------------------------------------------------------------


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


EVERYWHERE: list[tuple[str, str, bytes, dict[str, str]]] = [
    *(("POST", path, body, kind) for path, body, kind in CHANGING),
    *(
        ("GET", path, b"", {})
        for path in (
            "/",
            "/config",
            "/theme.css",
            "/static/img/logo.svg",
            "/gradio_api/info",
            "/gradio_api/queue/data?session_hash=x",
            "/gradio_api/queue/status",
            "/gradio_api/file=/etc/passwd",
            "/gradio_api/heartbeat/x",
            "/gradio_api/login_check",
            "/login_check",
            "/gradio_api/app_id",
            "/ichi/hello",
            "/ichi/events",
            "/ichi/stream.js",
            f"/ichi/jobs/{NOBODYS}/thumbnail",
            f"/ichi/jobs/{NOBODYS}/video/1.mp4",
            f"/ichi/jobs/{NOBODYS}/preview/1",
            "/nothing",
        )
    ),
]


UNTRIED = ("/ichi/events", "/gradio_api/queue/data?session_hash=x", "/ichi/download/start")
"""These would never end, or really download."""


def test_without_the_right_password_nothing_is_answered_and_nothing_kept(locked):
    for method, path, body, kind in EVERYWHERE:
        for wrong in ({}, basic("mia:wrongpass"), basic(LOGIN + "1"), basic(LOGIN[:-1]), basic("mia:")):
            status, said = ask(locked, path, method, body, **kind, **wrong, **OWN_HEADER)
            assert (status, said) == (401, b""), (method, path, wrong)
    assert [*(locked.home / "temp" / "uploads").rglob("*.png")] == []


def test_with_the_right_password_the_same_is_answered(locked):
    for method, path, body, kind in EVERYWHERE:
        if path not in UNTRIED:
            assert ask(locked, path, method, body, **kind, **basic(LOGIN), **OWN_HEADER)[0] not in (
                401,
                403,
            ), path


def test_the_log_holds_no_password(locked):
    said = (locked.home / "logs" / "endframe_ichi.log").read_text("utf-8")
    assert "login=..." in said
    for way in (LOGIN, LOGIN.partition(":")[2], basic(LOGIN)["Authorization"].split()[1]):
        assert way not in said


# -- letting others in -------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_lets_others_in_is_told_what_that_means(tmp_path, monkeypatch, capsys, language):
    def end(*_: object) -> None:
        raise InputError("no_result")

    words, login = Translator(language), ("mia", "password")
    monkeypatch.setattr("webui.eichi_utils.server.server._check_port", end)
    monkeypatch.setattr("webui.eichi_utils.server.server.running_app", lambda *_: None)
    warnings: dict[str, dict[str, Any]] = {
        words("page.warning_share"): {"share": True},
        words("page.warning_network", server="0.0.0.0"): {"server": "0.0.0.0"},
    }
    for warning, values in warnings.items():
        assert run_page(options(tmp_path, login=login, **values), words) == 2
        assert capsys.readouterr().err.splitlines()[0] == warning
    assert run_page(options(tmp_path, login=login), words) == 2
    assert capsys.readouterr().err.splitlines() == [words("failed", reason=words("error.no_result"))]


def test_an_app_for_others_warns_asks_for_the_password_and_answers_any_name(tmp_path):
    app = App(tmp_path, "--server", "0.0.0.0", "--login", LOGIN, environment=ENGLISH_WITHOUT_SCREEN)
    app.url = f"http://localhost:{app.port}/"
    app.start()
    try:
        words = Translator("en")
        assert app.said().splitlines()[0] == words("page.warning_network", server="0.0.0.0")
        assert ask(app, "/ichi/hello", Host="my-computer.local") == (401, b"")
        assert ask(app, "/ichi/hello", Host="my-computer.local", **basic(LOGIN))[0] == 200
        marked = {"Origin": "http://evil.example", **basic(LOGIN)}
        assert ask(app, "/ichi/hello", Host="my-computer.local", **marked) == (403, b"")
    finally:
        app.stop()


# -- the page of this computer -----------------------------------------------------------------------


def test_all_the_while_the_page_makes_videos_and_the_log_tells_of_them(app, cat):
    app.keep_settings(steps=1)
    with PageClient(app.url) as page:
        page.open()
        assert page.choose("start-image", page.upload(cat)) == ""
        assert page.click("start") == ""
        wait_until(lambda: len(app.videos()) > 1, "the video is made", patience=3 * PATIENCE)
    log = app.home / "logs" / "endframe_ichi.log"
    wait_until(lambda: " done after " in log.read_text("utf-8"), "the log tells of it")
    said = log.read_text("utf-8")
    for text in (
        "start: Python 3",
        "machine_check: good: ",
        '"steps": 1',
        "planned: ",
        "layers stay",
    ):
        assert text in said, text
    assert SECRET not in said
    assert "data:image" not in said
    assert "Traceback" not in app.said()
    assert app.said().count("\n") == 1, "the terminal stays quiet"


def test_the_port_of_another_app_is_another_site(app):
    other = free_port()
    assert ask(app, "/ichi/hello", Origin=f"http://127.0.0.1:{other}") == (403, b"")

"""The running app against other web pages and other people: what they send is refused, what they ask for is
not handed out, and the page itself works on. What each guard refuses is tested in tests/app/server."""

import base64
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app import ROOT, App
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, LOGIN, META, PageClient
from tests.support.wire import MULTIPART, ask, form
from webui.eichi_utils.text.translations import Translator

SECRET = "nobody may read this"
NEEDED = Translator("en")("page.password_needed").encode()
JSON = {"Content-Type": "application/json"}
OWN_HEADER = {"X-Endframe-Ichi": "1"}
JOB = "/ichi/jobs/0123456789abcdef"
"""A job that is not there."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("app")
    for name in ("outputs/private.mp4", "outputs/private.html", "presets/x.json", "cache/x"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(SECRET, "utf-8")
    app = App(home, environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings(prompt=SECRET)
    app.start()
    yield app
    app.stop()


def log_of(app: App) -> str:
    return "".join(file.read_text("utf-8") for file in (app.home / "logs").glob("*.log"))


# -- other web pages ---------------------------------------------------------------------------------

CALL = json.dumps({"data": [None, "A cat.", 1, None, None]}).encode()
UPLOAD = ("POST", "/gradio_api/upload", b"".join(form(b"a.png", [b"x"])), MULTIPART)
TEXTS = ({"Content-Type": kind} for kind in ("text/plain", "application/x-www-form-urlencoded"))
KINDS = (JSON, *TEXTS, MULTIPART)
CALLS = {
    **{f"/gradio_api/{name}": CALL for name in ("call/generate", "call/stop", "run/generate", "run/queue")},
    **{f"/gradio_api/{name}": b"{}" for name in ("call/v2/generate", "cancel", "reset")},
    "/gradio_api/api/generate": CALL,
    "/gradio_api/queue/join": json.dumps({"data": [], "fn_index": 0, "session_hash": "x"}).encode(),
    "/ichi/download/start": b"",
    **{f"{JOB}/{name}": b"" for name in ("stop", "remove")},
}
CHANGING = [UPLOAD, *(("POST", path, CALLS[path], kind) for path in CALLS for kind in KINDS)]
"""Requests that change something, as a page of another site can send them: with a form, or by a script."""
READ = ["/", "/config", "/theme.css", "/static/img/logo.svg", "/gradio_api/info", "/gradio_api/queue/status"]
READ += ["/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/passwd", "/gradio_api/heartbeat/x"]
READ += ["/gradio_api/login_check", "/login_check", "/gradio_api/app_id", "/ichi/hello", "/ichi/events"]
READ += [f"{JOB}/thumbnail", f"{JOB}/video/1.mp4", f"{JOB}/preview/1", "/ichi/stream.js", "/nothing"]
EVERYWHERE = [*CHANGING, *(("GET", path, b"", {}) for path in READ)]
UNTRIED = ("/ichi/events", "/gradio_api/queue/data?session_hash=x", "/ichi/download/start")
"""The paths that would never end, or really download."""


def test_other_web_page_and_foreign_host_can_neither_change_nor_read(app):
    uploads = app.home / "temp" / "uploads"
    before = [*uploads.rglob("*")]
    for method, path, body, kind in EVERYWHERE:
        for mark in ({"Origin": f"http://localhost:{app.port}"}, {"Sec-Fetch-Site": "cross-site"}):
            if path != "/" or "Origin" in mark:
                refused = ask(app, path, method, body, **kind, **mark, **OWN_HEADER)
                assert refused == (403, b""), (path, kind, mark)
        refused = ask(app, path, method, body, Host=f"evil.example:{app.port}", **kind, **OWN_HEADER)
        assert refused == (400, b"Invalid host header"), path
    assert [*uploads.rglob("*")] == before
    status, answer = ask(app, "/gradio_api/run/queue", "POST", b'{"data": []}', **JSON)
    assert (status, json.loads(answer)["data"]) == (200, [[]]), "a program of this computer is answered"
    host = f"localhost:{app.port}"
    assert ask(app, "/", Host=host, Origin=f"http://{host}")[0] == 200, "and the page itself"


def test_request_needs_exactly_one_host(app):
    hosts = [f"Host: 127.0.0.1:{app.port}\r\n", "Host: evil.example\r\n"]
    for lines in ("", "".join(hosts), "".join(reversed(hosts))):
        for version in ("1.0", "1.1"):
            request = f"GET /config HTTP/{version}\r\n{lines}Connection: close\r\n\r\n"
            with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
                connection.sendall(request.encode())
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.split()[1] == b"400"


def test_server_listens_on_this_computer_only(app):
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, app.port), timeout=5).close()
    if Path("/proc/net/tcp").exists():
        port = f":{app.port:04X}"
        lines = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines())
        listening = {line[1] for line in lines if line[1].endswith(port) and line[3] == "0A"}
        assert listening == {f"0100007F{port}"}


# -- files of this computer --------------------------------------------------------------------------

HIDDEN = ["settings/app_settings.json", "outputs/private.mp4", "outputs/private.html", "presets/x.json"]
HIDDEN += ["cache/x", "app.log", "temp/app.lock", "temp/app.json"]
FILES = ["/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"]
FILES += ["/gradio_api/proxy=", "/static/", "/assets/"]
ROUTES = ("static", "assets", "svelte", "ichi", "..")
OTHERS = [f"/{route}/../../../../../../../../etc/passwd" for route in ROUTES]
OTHERS += ["/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/custom_component/../../../etc/passwd/x/y/z"]
OTHERS += ["/gradio_api/stream/../../../etc/passwd", "/webui/endframe_ichi.py", "//etc/passwd"]
OTHERS += ["/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/proxy=file:///etc/passwd", "/docs", "/redoc"]
OTHERS += ["/settings/app_settings.json", "/outputs/private.mp4", "/monitoring", "/gradio_api/mcp/sse"]


def relative_to(folder: Path, path: Path) -> str:
    """The way from a folder to a file; on Windows there may be none from one drive to another."""
    with contextlib.suppress(ValueError):
        return os.path.relpath(path, folder)
    return str(path)


def ways_to(path: Path, uploads: Path) -> Iterator[str]:
    """Yields ways to write the path of a file."""
    relative = relative_to(uploads, path)
    for way in (str(path), f"file://{path}", relative_to(ROOT, path), relative, f"{uploads}/{relative}"):
        yield from (way, way.replace("/", "\\"), way.replace("..", "%2e%2e"))
        yield from (way.replace("/", "%2f").replace(".", "%2e"), way.replace("/", "%252f"))


def test_only_uploads_are_handed_out(app):
    own = [app.home / name for name in HIDDEN]
    files = (Path("/etc/passwd"), ROOT / "webui" / "endframe_ichi.py", *own)
    assert all(file.exists() for file in files)
    ways = [way for file in files for way in ways_to(file, app.home / "temp" / "uploads")]
    for path in (*OTHERS, *(route + way.replace(" ", "%20") for route in FILES for way in ways)):
        status, content = ask(app, path)
        assert status in (400, 403, 404, 405), (path, content[:100])
        assert SECRET.encode() not in content
        assert b"root:" not in content


def chosen(page: PageClient, name: str, path: str, **more: str) -> str:
    """The message of the page or of gradio about a path that comes as an upload."""
    file = {"path": path, "meta": META, **more}
    try:
        return page.choose(name, [file] if name == "inbox" else file)
    except AssertionError as error:
        return str(error)


def test_uploads_are_shown_and_run_nothing(app, cat, tmp_path):
    script = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    with PageClient(app.url) as page:
        assert page.http.get(f"gradio_api/file={page.upload(cat)['path']}").content == cat.read_bytes()
        for name in ("a.svg", "a.html", "a.xhtml", "a.xml", "a.js", "a.png", "a.pdf", "a"):
            file = tmp_path / name
            file.write_text(script, "utf-8")
            answer = page.http.get(f"gradio_api/file={page.upload(file)['path']}")
            assert answer.status_code == 200
            assert "sandbox" in answer.headers["content-security-policy"]
            is_inline = answer.headers["content-disposition"].startswith("inline")
            assert is_inline == (name == "a.png"), "a picture that holds no picture shows nothing"
            assert not {"html", "svg"} & set(answer.headers["content-type"].replace("+", "/").split("/"))


# -- addresses that the app is made to fetch ---------------------------------------------------------


@pytest.fixture
def unvisited() -> Iterator[str]:
    """The address of a server that nobody may visit."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_app_fetches_no_address_that_somebody_names(app, unvisited):
    public = "http://93.184.215.14/a.png"  # gradio itself refuses private addresses only
    values = [{"path": address, "url": address, "meta": META} for address in (unvisited, public)]
    with PageClient(app.url) as page:
        page.open()
        for value in values:
            for place in ("start-image", "end-image", "inbox"):
                assert "was not found" in chosen(page, place, value["path"], url=value["url"])
            for endpoint in ("call", "run"):
                body = json.dumps({"data": [value, "A cat.", 1, None, None]}).encode()
                status, said = ask(app, f"/gradio_api/{endpoint}/generate", "POST", body, **JSON)
                if endpoint == "call":
                    event = json.loads(said)["event_id"]
                    status, said = ask(app, f"/gradio_api/call/generate/{event}")
                assert b"was not found" in said, (status, said)
            assert ask(app, f"/gradio_api/file={value['path']}") == (404, b"")
            assert ask(app, f"/gradio_api/proxy={value['path']}") == (404, b"")


# -- other people ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app for other computers, too, which asks for a name and a password."""
    options = ("--server", "0.0.0.0", "--login", LOGIN)
    app = App(tmp_path_factory.mktemp("locked"), *options, environment=ENGLISH_WITHOUT_SCREEN)
    app.url = f"http://localhost:{app.port}/"
    app.start()
    yield app
    app.stop()


def basic(login: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def test_everything_needs_the_password(locked):
    for method, path, body, kind in EVERYWHERE:
        for wrong in ({}, basic(LOGIN + "1"), basic(LOGIN[:-1])):
            refused = ask(locked, path, method, body, **kind, **wrong, **OWN_HEADER)
            assert refused == (401, NEEDED), (method, path, wrong)
    assert [*(locked.home / "temp" / "uploads").rglob("*.png")] == [], "nothing is kept"
    assert ask(locked, "/gradio_api/startup-events")[1] in (b"true", b"false"), "this reveals nothing"
    for method, path, body, kind in EVERYWHERE:
        if path not in UNTRIED:
            status, _ = ask(locked, path, method, body, **kind, **basic(LOGIN), **OWN_HEADER)
            assert status not in (401, 403), path


def test_page_works_with_the_password_which_is_not_logged(locked, cat):
    with PageClient(locked.url, basic(LOGIN)) as page:
        page.open()
        assert page.choose("start-image", page.upload(cat)) == ""
        stored = page.shown["start-image"]["path"]
        assert page.http.get(f"gradio_api/file={stored}").status_code == 200
    assert ask(locked, f"/gradio_api/file={stored}")[0] == 401
    for way in (LOGIN, LOGIN.partition(":")[2], basic(LOGIN)["Authorization"].split()[1]):
        assert way not in log_of(locked)

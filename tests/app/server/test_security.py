"""Which hosts and pages may talk to the server, and who must name a password."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from webui.eichi_utils.server.security import BLOCKED_PATHS, FILES, PUBLIC_PATH, is_loopback, make_guards

UPLOADS = Path("/")
LOGIN = ("mia", "p\u00e4ss:word 1")


async def answer(_: object) -> PlainTextResponse:
    return PlainTextResponse("here")


def guarded(
    server: str = "127.0.0.1", *, shared: bool = False, login: tuple[str, str] | None = None
) -> Starlette:
    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=make_guards(server, shared, login, UPLOADS))


@pytest.fixture
def local() -> Iterator[TestClient]:
    with TestClient(guarded(), "http://127.0.0.1:8001") as client:
        yield client


@pytest.fixture
def locked() -> Iterator[TestClient]:
    with TestClient(guarded("0.0.0.0", login=LOGIN), "http://192.168.0.7:8001") as client:
        yield client


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# -- hosts: DNS rebinding ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "localhost:8001", "LOCALHOST", "[::1]:8001"])
def test_this_computers_own_names_are_answered(local, host):
    assert local.get("/", headers={"Host": host}).text == "here"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8001",
        "127.0.0.1.evil.example:8001",
        "localhost.evil.example",
        "evil.example#127.0.0.1",
        "user@127.0.0.1",
        "127.0.0.1:8001, evil.example",
        "192.168.0.7",
        "0.0.0.0:8001",
        "",
    ],
)
def test_any_other_name_of_this_computer_is_refused(local, host):
    for method in ("GET", "POST"):
        answer = local.request(method, "/", headers={"Host": host}, follow_redirects=False)
        assert (answer.status_code, "here" in answer.text) == (400, False)


@pytest.mark.parametrize("server", ["127.0.0.1", "localhost", "127.0.0.5"])
def test_a_server_is_answered_under_the_address_that_it_was_given(server):
    with TestClient(guarded(server), f"http://{server}:8001") as client:
        assert client.get("/").status_code == 200


def test_a_server_for_others_is_answered_under_any_name(locked):
    headers = {"Host": "my-computer.local", "Authorization": basic(*LOGIN)}
    assert locked.get("/", headers=headers).text == "here"


def test_a_shared_page_is_answered_under_the_name_of_the_tunnel():
    with TestClient(guarded(shared=True, login=LOGIN), "https://abc.gradio.live") as client:
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"Authorization": basic(*LOGIN)}).text == "here"


@pytest.mark.parametrize(
    ("server", "is_so"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("127.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_only_addresses_that_nobody_else_can_reach_are_of_this_computer(server, is_so):
    assert is_loopback(server) is is_so


# -- other web pages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8001",
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:8002",
        "http://localhost:8001",
        "http://127.0.0.1:8001.evil.example",
        "http://evil.example/127.0.0.1:8001",
        "127.0.0.1:8001",
        "file://",
    ],
)
def test_what_another_web_page_sends_is_refused(local, method, origin):
    answer = local.request(method, "/", headers={"Origin": origin})
    assert (answer.status_code, answer.text) == (403, "")


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8001", "https://127.0.0.1:8001"])
def test_what_the_page_itself_or_a_program_sends_is_answered(local, origin):
    headers = {} if origin is None else {"Origin": origin}
    assert local.post("/", headers=headers).text == "here"


def test_another_web_page_is_refused_even_with_the_password(locked):
    headers = {"Origin": "http://evil.example", "Authorization": basic(*LOGIN)}
    assert locked.get("/", headers=headers).status_code == 403


FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_what_a_browser_says_comes_from_another_site_is_refused_without_an_origin(local, method, site):
    for more in ({}, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, FOLLOWED):
        answer = local.request(method, "/x", headers={"Sec-Fetch-Site": site} | more)
        assert (answer.status_code, answer.text) == (403, "")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_a_browser_says_comes_from_the_page_or_the_user_is_answered(local, site):
    for method in ("GET", "POST"):
        assert local.request(method, "/x", headers={"Sec-Fetch-Site": site}).text == "here"


def test_a_link_from_elsewhere_leads_to_the_page_and_neither_into_a_frame_nor_to_an_action(local):
    headers = {"Sec-Fetch-Site": "cross-site"} | FOLLOWED
    assert local.get("/", headers=headers).text == "here"
    assert local.get("/gradio_api/file=/x.png", headers=headers).status_code == 403
    assert local.post("/", headers=headers).status_code == 403, "a form that another page sends"
    assert local.get("/", headers=headers | {"Sec-Fetch-Dest": "iframe"}).status_code == 403


def test_nobody_can_open_a_web_socket(local, locked):
    for client in (local, locked):
        for headers in ({}, {"Origin": "http://evil.example"}):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/", headers=headers):
                pass


# -- what answers may do, and what is closed ---------------------------------------------------------


def test_every_answer_says_that_it_stands_in_no_other_page_and_is_what_it_says(local):
    refused = {"Origin": "http://evil.example"}
    for answer in (local.get("/"), local.get("/x"), local.get("/", headers=refused), local.get("/login")):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_in_a_file_nothing_may_run(local):
    for start in FILES:
        policy = local.get(f"{start}/x.html").headers["content-security-policy"]
        assert "sandbox" in policy
        assert "default-src 'none'" in policy
        assert "script" not in policy


@pytest.mark.parametrize("path", [*BLOCKED_PATHS, *(f"{path}/x/y" for path in BLOCKED_PATHS)])
def test_what_the_page_never_asks_is_closed(local, path):
    for method in ("GET", "POST"):
        assert local.request(method, path).status_code == 404


@pytest.mark.parametrize("start", FILES)
def test_only_what_lies_in_the_folder_of_uploads_is_handed_out(tmp_path, start):
    uploads, outside = tmp_path / "uploads", tmp_path / "outside.png"
    uploads.mkdir()
    for path in (uploads / "a.png", outside):
        path.write_bytes(b"x")
    links = []
    with contextlib.suppress(OSError):  # this system makes no links
        (uploads / "link.png").symlink_to(outside)
        links = [uploads / "link.png"]
    routes = [Route("/{path:path}", answer)]
    app = Starlette(routes=routes, middleware=make_guards("127.0.0.1", False, None, uploads))
    with TestClient(app, "http://127.0.0.1:8001") as client:
        assert client.get(f"{start}{uploads / 'a.png'}").text == "here"
        for path in (
            outside,
            *links,
            f"{uploads}/../outside.png",
            "http://evil.example/x",
            "a.png",
            "",
            "%00",
        ):
            assert client.get(f"{start}{path}").status_code == 404, path


def test_without_a_folder_of_uploads_no_file_is_handed_out():
    app = Starlette(routes=[Route("/{path:path}", answer)], middleware=make_guards("127.0.0.1", False, None))
    with TestClient(app, "http://127.0.0.1:8001") as client:
        assert client.get("/gradio_api/file=/x.png").status_code == 404


# -- the password ------------------------------------------------------------------------------------

PATHS = [
    "/",
    "/config",
    "/ichi/events",
    "/ichi/jobs/0/stop",
    "/gradio_api/upload",
    "/gradio_api/file=/x.png",
    f"{PUBLIC_PATH}/",
    f"{PUBLIC_PATH}x",
    PUBLIC_PATH.upper(),
    f"/x/%2e%2e{PUBLIC_PATH}",
]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_password(locked, method, path):
    answer = locked.request(method, path)
    assert answer.status_code == 401
    assert answer.content == b""
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_the_password_opens_everything(locked):
    for path in PATHS:
        assert locked.get(path, headers={"Authorization": basic(*LOGIN)}).text == "here"


@pytest.mark.parametrize("kind", ["basic", "BASIC", "Basic"])
def test_the_kind_of_login_may_be_written_in_any_case(locked, kind):
    header = basic(*LOGIN).replace("Basic", kind)
    assert locked.get("/", headers={"Authorization": header}).text == "here"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Basic",
        "Basic ",
        "Basic ====",
        "Basic \u00e9".encode(),
        basic("mia", ""),
        basic("mia", "p\u00e4ss:word"),
        basic("mia", "p\u00e4ss:word 12"),
        basic("Mia", LOGIN[1]),
        basic("", ""),
        basic(*LOGIN) + "=",
        basic(*LOGIN).removeprefix("Basic "),
        basic(*LOGIN).replace("Basic", "Bearer"),
    ],
)
def test_a_wrong_password_opens_nothing(locked, given):
    assert locked.get("/", headers={"Authorization": given}).status_code == 401


def test_only_what_gradio_asks_itself_needs_no_password(locked):
    assert locked.get(PUBLIC_PATH).status_code == 200

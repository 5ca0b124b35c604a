"""The guards one by one: hosts, origins, headers, blocked paths and the password."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from webui.eichi_utils.instance import is_loopback
from webui.eichi_utils.server.security import BLOCKED_PATHS, FILES, PUBLIC_PATH, make_guards
from webui.eichi_utils.text.translations import Translator

HERE = "127.0.0.1:8001"
WORDS = Translator("ja")
LOGIN = ("mia", "p\u00e4ss:word 1")


async def answer(_: object) -> PlainTextResponse:
    return PlainTextResponse("here")


def guarded(
    server: str = "127.0.0.1",
    *,
    shared: bool = False,
    login: tuple[str, str] | None = None,
    uploads: Path = Path("/"),
) -> Starlette:
    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=make_guards(server, shared, login, uploads, WORDS))


@pytest.fixture
def local() -> Iterator[TestClient]:
    with TestClient(guarded(), f"http://{HERE}") as client:
        yield client


@pytest.fixture
def locked() -> Iterator[TestClient]:
    with TestClient(guarded("0.0.0.0", login=LOGIN), "http://192.168.0.7:8001") as client:
        yield client


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# -- hosts: DNS rebinding ----------------------------------------------------------------------------

ALLOWED_HOSTS = [HERE, "localhost:8001", "LOCALHOST", "localhost", "[::1]:8001"]
REFUSED_HOSTS = ["evil.example", "evil.example:8001", "127.0.0.1.evil.example:8001", "localhost.evil.example"]
REFUSED_HOSTS += ["evil.example#127.0.0.1", "user@127.0.0.1", "127.0.0.1@evil.example", "2130706433", ""]
REFUSED_HOSTS += ["evil.example/127.0.0.1", "127.0.0.1:8001, evil.example", "192.168.0.7", "0.0.0.0:8001"]
REFUSED_HOSTS += ["localhost.:8001", "[::ffff:7f00:1]:8001", "[fe80::1]"]


@pytest.mark.parametrize(
    ("host", "status"), [*((host, 200) for host in ALLOWED_HOSTS), *((host, 400) for host in REFUSED_HOSTS)]
)
def test_only_names_of_this_computer_are_answered(local, host, status):
    for method in ("GET", "POST"):
        reply = local.request(method, "/", headers={"Host": host}, follow_redirects=False)
        assert (reply.status_code, reply.text == "here") == (status, status == 200)


def test_public_server_is_answered_under_any_name(locked):
    headers = {"Host": "my-computer.local", "Authorization": basic(*LOGIN)}
    assert locked.get("/", headers=headers).text == "here"
    with TestClient(guarded(shared=True, login=LOGIN), "https://abc.gradio.live") as client:
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"Authorization": basic(*LOGIN)}).text == "here"


def test_loopback_addresses_are_recognised_and_answered():
    for server in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(server)
        address = f"http://[{server}]:8001" if ":" in server else f"http://{server}:8001"
        with TestClient(guarded(server), address) as client:
            assert client.get("/").status_code == 200
    for server in ("0.0.0.0", "::", "192.168.0.7", "127.evil.example", "localhost.evil.example", ""):
        assert not is_loopback(server)


# -- other web pages ---------------------------------------------------------------------------------

FOREIGN_ORIGINS = ["http://evil.example", "https://evil.example:8001", "null", "", "file://", HERE]
FOREIGN_ORIGINS += ["http://127.0.0.1", "http://127.0.0.1:8001.evil.example"]
FOREIGN_ORIGINS += ["http://127.0.0.1:8002", "http://localhost:8001"]
FOREIGN_ORIGINS += ["http://evil.example/127.0.0.1:8001", "http://evil.example@127.0.0.1:8001"]
FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_foreign_origin_is_refused(local, locked, origin):
    for more in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Authorization": basic(*LOGIN)}):
        for method in ("GET", "POST"):
            for client in (local, locked):
                reply = client.request(method, "/", headers={"Origin": origin} | more)
                assert (reply.status_code, reply.text) == (403, "")


def test_own_page_user_and_programs_are_answered(local):
    own = [{}, *({"Origin": f"{scheme}://{HERE}"} for scheme in ("http", "https"))]
    for headers in (*own, *({"Sec-Fetch-Site": site} for site in ("same-origin", "none"))):
        for method in ("GET", "POST"):
            assert local.request(method, "/x", headers=headers).text == "here"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense", ""])
def test_link_from_elsewhere_opens_the_page_and_nothing_else(local, site):
    image = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    for method in ("GET", "POST", "HEAD", "OPTIONS"):
        for more in ({}, image, FOLLOWED):
            reply = local.request(method, "/x", headers={"Sec-Fetch-Site": site} | more)
            assert (reply.status_code, reply.text) == (403, "")
    headers = {"Sec-Fetch-Site": site} | FOLLOWED
    assert local.get("/", headers=headers).text == "here"
    assert local.post("/", headers=headers).status_code == 403, "a form that another page sends"
    assert local.get("/", headers=headers | {"Sec-Fetch-Dest": "iframe"}).status_code == 403


def test_web_sockets_are_refused(local, locked):
    for client in (local, locked):
        for headers in ({}, {"Origin": "http://evil.example"}):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/", headers=headers):
                pass


# -- headers and blocked paths -----------------------------------------------------------------------


def test_a_browser_keeps_no_page_that_going_back_would_show_with_old_settings(local):
    assert local.get("/").headers["cache-control"] == "no-store"


def test_every_answer_has_safe_headers_and_files_may_run_nothing(local):
    refused = {"Origin": "http://evil.example"}
    replies = [local.get("/"), local.get("/x"), local.get("/", headers=refused), local.get("/login")]
    files = [local.get(f"{start}/x.html") for start in FILES]
    for reply in (*replies, *files):
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    for policy in (reply.headers["content-security-policy"] for reply in files):
        assert "sandbox" in policy
        assert "default-src 'none'" in policy
        assert "script" not in policy


@pytest.mark.parametrize("path", BLOCKED_PATHS)
def test_blocked_paths_are_not_found(local, path):
    for method in ("GET", "POST"):
        for below in ("", "/x/y"):
            assert local.request(method, path + below).status_code == 404


# -- the password ------------------------------------------------------------------------------------

PATHS = ["/", "/config", "/ichi/events", "/ichi/jobs/0/stop", "/gradio_api/upload", "/gradio_api/file=/x.png"]
PATHS += [f"{PUBLIC_PATH}/", f"{PUBLIC_PATH}x", PUBLIC_PATH.upper(), f"/x/%2e%2e{PUBLIC_PATH}"]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_needs_the_password(locked, path):
    for method in ("GET", "POST", "HEAD", "OPTIONS"):
        reply = locked.request(method, path)
        assert reply.status_code == 401
        assert reply.text == ("" if method == "HEAD" else WORDS("page.password_needed"))
        assert reply.headers["www-authenticate"].startswith("Basic realm=")
    assert locked.get(path, headers={"Authorization": basic(*LOGIN)}).text == "here"


GIVEN = {
    200: [basic(*LOGIN).replace("Basic", kind) for kind in ("basic", "BASIC", "Basic")],
    401: [
        *("", "Basic", "Basic ", "Basic ====", "Basic \u00e9".encode()),
        *(basic("mia", ""), basic("mia", "p\u00e4ss:word"), basic("mia", "p\u00e4ss:word 12")),
        *(basic("Mia", LOGIN[1]), basic("", ""), basic(*LOGIN) + "="),
        *(basic(*LOGIN).removeprefix("Basic "), basic(*LOGIN).replace("Basic", "Bearer")),
    ],
}
"""Values of the header, by the status of the answer."""


@pytest.mark.parametrize("status", GIVEN)
def test_only_the_password_opens_all_but_the_public_path(locked, status):
    for given in GIVEN[status]:
        assert locked.get("/", headers={"Authorization": given}).status_code == status, given
        assert locked.get(PUBLIC_PATH, headers={"Authorization": given}).status_code == 200

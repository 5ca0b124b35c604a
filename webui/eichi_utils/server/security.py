"""The guards in front of the server: which hosts and pages may send requests, who needs a password, and
which of gradio's addresses are blocked.

Plain ASGI, so that streams pass untouched. The size of requests is limited in `body_limit`.
"""

import base64
import hmac
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response

from ..instance import LOOPBACK, is_loopback
from ..text.translations import Translator
from ..uploads.files import lies_in

PUBLIC_PATH = "/gradio_api/startup-events"
"""The path that gradio asks itself at its start, without a password; it reveals nothing."""
FILES = ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/")
BLOCKED_PATHS = (
    "/gradio_api/proxy=",
    "/gradio_api/custom_component",
    "/gradio_api/component_server",
    "/gradio_api/deep_link",
    "/gradio_api/dev",
    "/gradio_api/process_recording",
    "/gradio_api/run-history",
    "/gradio_api/runs",
    "/gradio_api/stream",
    "/gradio_api/token",
    "/gradio_api/undo-vibe",
    "/gradio_api/vibe",
    "/login",
    "/logout",
    "/monitoring",
)
"""The paths that gradio answers and the page never asks: they fetch, print, write or reveal too much."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; frame-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""The rules of the page: nothing from elsewhere, and in no other page. Gradio has inline scripts."""
FILE_POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; sandbox; frame-ancestors 'none'"
"""The rules of an upload: a picture or a video, whatever it holds; nothing in it runs."""
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SAFE_SITES = ("same-origin", "none")
"""The origins of a request, as a browser names them, that are this page or the user's own hand."""


def make_guards(
    server: str, shared: bool, login: tuple[str, str] | None, uploads: Path, words: Translator
) -> list[Middleware]:
    """Return the guards of a server: on this computer only its own names are answered (no DNS rebinding).

    Of all files, gradio may serve those in `uploads` alone. `words` tell who gives no password.
    """
    guards = [Middleware(SafeHeaders), Middleware(Guard, refuse=refuse_other_pages)]
    if not shared and is_loopback(server):
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", server]))
    if login is not None:
        expected = base64.b64encode(":".join(login).encode())
        guards.append(
            Middleware(
                Guard, refuse=partial(refuse_without_password, expected, words("page.password_needed"))
            )
        )
    return [*guards, Middleware(Guard, refuse=partial(refuse_blocked_paths, uploads))]


class SafeHeaders:
    """Limits what browsers do with an answer: show it in no other page, load from nowhere else."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        policy = FILE_POLICY if scope.get("path", "").startswith(FILES) else PAGE_POLICY

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                safe = SAFE_HEADERS | {"Content-Security-Policy": policy}
                if scope["path"] == "/":  # it is served as it was filled in: Back must not show an old one
                    safe |= {"Cache-Control": "no-store"}
                MutableHeaders(scope=message).update(safe)
            await send(message)

        await self._app(scope, receive, send_safely)


class Guard:
    """Answers instead of the app wherever `refuse`, asked with the scope of a request, returns a response."""

    def __init__(self, app: Any, refuse: Callable[[Any], Response | None]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # the app has none, and browsers let any page open one
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = self._refuse(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)


def refuse_other_pages(scope: Any) -> Response | None:
    """Refuse what another web page sends: its origin is not the host that it addresses, or the browser
    reports another site. Following a link to the page is allowed."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return Response(status_code=403)
    follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    opens_page = follows_link and scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
    is_safe = headers.get("sec-fetch-site", "none") in SAFE_SITES or opens_page
    return None if is_safe else Response(status_code=403)


def refuse_without_password(expected: bytes, sentence: str, scope: Any) -> Response | None:
    """Ask for a name and a password (HTTP's basic authentication) everywhere but on one path.

    Guesses are not slowed down: all come from one address behind a proxy, so that would lock out the user.
    """
    kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    is_known = kind.lower() == "basic" and hmac.compare_digest(given.strip().encode(), expected)
    if is_known or scope["path"] == PUBLIC_PATH:
        return None
    asks = {"WWW-Authenticate": 'Basic realm="Endframe Ichi", charset="UTF-8"'}
    return PlainTextResponse(sentence, status_code=401, headers=asks)


def refuse_blocked_paths(uploads: Path, scope: Any) -> Response | None:
    """Refuse what gradio would answer and the page never asks, and every file that was not uploaded."""
    path = scope["path"]
    files = [path[len(start) :] for start in FILES if path.startswith(start)]
    is_foreign = any(not lies_in(file, uploads) for file in files)
    return Response(status_code=404) if is_foreign or path.startswith(BLOCKED_PATHS) else None

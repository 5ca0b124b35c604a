"""What stands in front of the server: which hosts and pages may talk to it, and who must name a password.

Plain ASGI, so that streams pass untouched.
"""

import base64
import contextlib
import hmac
import ipaddress
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATH = "/gradio_api/startup-events"
"""Gradio asks itself this at its start, without a password; it tells nothing."""


def make_guards(server: str, shared: bool, login: tuple[str, str] | None) -> list[Middleware]:
    """The guards of a server: on this computer only its own names are answered, which ends DNS rebinding."""
    guards = [Middleware(SameOrigin)]
    if not shared and is_loopback(server):
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", server]))
    if login is not None:
        guards.append(Middleware(PasswordRequired, login=login))
    return guards


def is_loopback(server: str) -> bool:
    """Whether only this computer can reach a server of that address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(server).is_loopback
    return server in LOOPBACK


class SameOrigin:
    """Refuses what another web page sends: its origin is not the host that it talks to."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                await Response(status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class PasswordRequired:
    """HTTP's basic authentication for everything."""

    def __init__(self, app: Any, login: tuple[str, str]) -> None:
        self._app = app
        self._expected = base64.b64encode(":".join(login).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != OPEN_PATH and not self._is_known(scope):
            asks = {"WWW-Authenticate": 'Basic realm="Endframe Ichi", charset="UTF-8"'}
            await Response(status_code=401, headers=asks)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Any) -> bool:
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return kind.lower() == "basic" and hmac.compare_digest(given.strip().encode(), self._expected)

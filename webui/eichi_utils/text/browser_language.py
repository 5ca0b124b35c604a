"""The language of the browser that asks for the page: the page's language until somebody chooses one."""

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from .translations import language_of

_asked_for: ContextVar[str] = ContextVar("accept-language", default="")


class BrowserLanguage:
    """Remembers, while a request is answered, which languages its browser asks for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        _asked_for.set(headers.get(b"accept-language", b"").decode("latin-1"))
        await self._app(scope, receive, send)


def browser_language() -> str | None:
    """Return the first of our languages that the browser of this request asks for.

    One that asks for others alone gets English, which its user knows more likely than Japanese; None where a
    program asks for none.
    """
    names = [entry.partition(";")[0].strip() for entry in _asked_for.get().split(",")]
    asks = any(name and name != "*" for name in names)
    return next(filter(None, map(language_of, names)), "en" if asks else None)

"""How much a request may send, and what becomes of an upload that does not come to its end.

Plain ASGI. What is too large gets an answer that can be read: a browser shows none while it still sends, so
the rest is taken and thrown away, up to a measure.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from ..uploads.cleanup import UploadKeeper
from ..uploads.files import MAX_UPLOAD, MB

MAX_BODY = 4 * MB
"""Of everything else: texts, numbers, and the names of uploads."""
MAX_THROWN_AWAY = 2000 * MB
THROWING_SECONDS = 120
UPLOAD = "/gradio_api/upload"


class BodyLimit:
    """Refuses bodies that are too large, and lets the keeper tidy up behind each upload.

    Args:
        too_large: makes the sentence for an upload of more than that many MB.
    """

    def __init__(self, app: Any, keeper: UploadKeeper, too_large: Callable[[int], str]) -> None:
        self._app = app
        self._keeper = keeper
        self._too_large = too_large

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/") == UPLOAD
        body = _Body(receive, MAX_UPLOAD if is_upload else MAX_BODY, is_upload)
        with self._keeper.uploading() if is_upload else contextlib.nullcontext():
            if not body.is_announced_too_large(Headers(scope=scope)):
                await self._app(scope, body.receive, body.unless_too_large(send))
        if body.is_too_large:
            await body.throw_rest_away()
            sentence = self._too_large(MAX_UPLOAD // MB) if is_upload else ""
            await PlainTextResponse(sentence, status_code=413)(scope, receive, send)
        if is_upload:
            await asyncio.to_thread(self._keeper.tidy)


class _Body:
    """The body of one request as it comes."""

    def __init__(self, receive: Any, limit: int, is_upload: bool) -> None:
        self._receive = receive
        self._limit = limit
        self._is_upload = is_upload
        self._received = 0
        self._has_more = True
        self.is_too_large = False

    def is_announced_too_large(self, headers: Headers) -> bool:
        announced = headers.get("content-length", "")
        self.is_too_large = announced.isdecimal() and int(announced[:20]) > self._limit
        return self.is_too_large

    async def receive(self) -> Any:
        """The next piece. Where none comes any more, gradio's parser must end in the one way in which it
        deletes what it has written."""
        message = await self._take()
        self.is_too_large = self._received > self._limit
        is_gone = message["type"] == "http.disconnect" and self._has_more
        if self._is_upload and (self.is_too_large or is_gone):
            raise MultiPartException("The upload ends here.")
        if self.is_too_large:
            raise HTTPException(413)
        return message

    def unless_too_large(self, send: Any) -> Any:
        async def send_on(message: Any) -> None:
            if not self.is_too_large:
                await send(message)

        return send_on

    async def throw_rest_away(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._throw_away(), THROWING_SECONDS)

    async def _throw_away(self) -> None:
        while self._has_more and self._received < MAX_THROWN_AWAY:
            if (await self._take())["type"] == "http.disconnect":
                return

    async def _take(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._has_more = message.get("more_body", False)
        return message

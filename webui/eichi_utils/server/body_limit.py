"""Limits how much a request may send. Plain ASGI.

Gradio limits single files only, neither all of an upload nor any other body, and keeps the part of an upload
whose sender goes away. A browser shows no answer while it still sends, so the rest of what is too large is
received and discarded, up to a limit.
"""

import asyncio
import contextlib
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from ..uploads.cleanup import UploadCleaner
from ..uploads.files import MAX_UPLOAD, MB
from .error_response import FindTranslator, asked_language

MAX_BODY = 4 * MB
"""Bytes of everything but uploads: texts, numbers, and the names of uploads."""
MAX_DISCARDED = 2000 * MB
DISCARD_SECONDS = 120
UPLOAD = "/gradio_api/upload"


class BodyLimit:
    """Refuses bodies that are too large, in their language; the cleaner runs after each upload."""

    def __init__(self, app: Any, cleaner: UploadCleaner, translator: FindTranslator) -> None:
        self._app = app
        self._cleaner = cleaner
        self._translator = translator

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/") == UPLOAD
        body = _Body(receive, MAX_UPLOAD if is_upload else MAX_BODY, is_upload)

        async def send_on(message: Any) -> None:
            if not body.is_too_large:
                await send(message)

        with self._cleaner.uploading() if is_upload else contextlib.nullcontext():
            announced = Headers(scope=scope).get("content-length", "")
            body.is_too_large = announced.isdecimal() and int(announced[:20]) > body.limit
            if not body.is_too_large:
                await self._app(scope, body.receive, send_on)
        if body.is_too_large:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(body.discard_rest(), DISCARD_SECONDS)
            words = self._translator(asked_language(scope))
            sentence = words("page.upload_too_large", megabytes=MAX_UPLOAD // MB) if is_upload else ""
            await PlainTextResponse(sentence, status_code=413)(scope, receive, send)
        if is_upload:
            await asyncio.to_thread(self._cleaner.tidy)


class _Body:
    """The body of one request as it comes."""

    def __init__(self, receive: Any, limit: int, is_upload: bool) -> None:
        self.limit = limit
        self.is_too_large = False
        self._receive = receive
        self._is_upload = is_upload
        self._received = 0
        self._has_more = True

    async def receive(self) -> Any:
        """Return the next piece; an upload that breaks off ends in the way in which gradio deletes it."""
        message = await self._take()
        self.is_too_large = self._received > self.limit
        is_gone = message["type"] == "http.disconnect" and self._has_more
        if self._is_upload and (self.is_too_large or is_gone):
            raise MultiPartException("The upload ends here.")
        if self.is_too_large:
            raise HTTPException(413)
        return message

    async def discard_rest(self) -> None:
        while self._has_more and self._received < MAX_DISCARDED:
            if (await self._take())["type"] == "http.disconnect":
                return

    async def _take(self) -> Any:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._has_more = message.get("more_body", False)
        return message

"""The response to a request whose handler failed: a sentence, never a traceback."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from diffusers_helper.errors import InputError
from diffusers_helper.public import disk_error, is_limit

from ..support.failures import as_engine_error
from ..text.error_text import error_text
from ..text.translations import Translator

logger = logging.getLogger(__name__)

FindTranslator = Callable[[object], Translator]


def asked_language(scope: Any) -> str:
    """Return the language that a request asks for; pages send that of their tab, by its code alone."""
    return Headers(scope=scope).get("accept-language", "")


class ErrorResponse:
    """Plain ASGI. Logs whatever is raised behind it, and answers with a sentence in the asked language.

    Args:
        translator: returns the words of a language, see `AppState.translator`.
        uploads: the folder to name where a disk is full.
    """

    def __init__(self, app: Any, translator: FindTranslator, uploads: Path) -> None:
        self._app = app
        self._translator = translator
        self._uploads = uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = _HeldStart(send)
        try:
            await self._app(scope, receive, answer)
            await answer.begin()
        except Exception as caught:
            if scope["type"] != "http":
                raise
            logger.warning("%s %r failed", scope["method"], scope["path"], exc_info=True)
            if answer.has_begun:  # it ends here; the server notices missing bytes
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            # Starlette raises another error where the file is gone before the answer's start.
            missed = caught.__context__ if isinstance(caught, RuntimeError) else answer.start and caught
            status, error = 500, as_engine_error(caught)
            if isinstance(missed, FileNotFoundError):
                status, error = 404, InputError("image_missing", image=scope["path"].rpartition("/")[2])
            elif isinstance(caught, OSError) and is_limit(caught):
                error = disk_error(caught, self._uploads)
            words = self._translator(asked_language(scope))
            await PlainTextResponse(error_text(error, words), status)(scope, receive, send)


class _HeldStart:
    """A `send` that holds the start of an answer until its first bytes come.

    A file may be deleted in between, as an upload is that is refused while a page fetches its preview.
    """

    def __init__(self, send: Any) -> None:
        self.has_begun = False
        self.start: Any = None
        self._send = send

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            await self.begin()
            await self._send(message)

    async def begin(self) -> None:
        """Send the start, if one is held."""
        if self.start is not None:
            start, self.start, self.has_begun = self.start, None, True
            await self._send(start)

"""Bodies that are too large or break off, with small limits and no gradio."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

from webui.eichi_utils.server import body_limit
from webui.eichi_utils.server.body_limit import UPLOAD, BodyLimit
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.cleanup import UploadCleaner

MB = 1_000_000
GONE = {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    for name, limit in (("MAX_UPLOAD", 2 * MB), ("MAX_BODY", 10), ("MAX_DISCARDED", 4 * MB)):
        monkeypatch.setattr(body_limit, name, limit)


class Server:
    """An app behind the limit: it writes the body into a file, as gradio does with half of an upload."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.half = folder / "half"
        self.raised: Exception | None = None
        self.taken = 0
        self.language = ""
        self._limit = BodyLimit(
            self._app, UploadCleaner(folder), lambda asked: Translator(str(asked) or "en")
        )

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            self.half.write_bytes(await Request(scope, receive).body())
        except (MultiPartException, HTTPException, ClientDisconnect) as error:
            self.raised = error
        await PlainTextResponse("taken")(scope, receive, send)

    def ask(self, path: str, pieces: Iterable[dict[str, Any]], method: str = "POST", length: int = 0) -> Any:
        """The status and text of the answer to a body in pieces."""
        messages, sent = iter(pieces), []
        headers = [(b"accept-language", self.language.encode())] if self.language else []
        headers += [(b"content-length", str(length).encode())] if length else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers}

        async def receive() -> dict[str, Any]:
            self.taken += 1
            return next(messages, GONE)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self._limit(scope, receive, send))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


@pytest.fixture
def server(tmp_path) -> Server:
    return Server(tmp_path / "uploads")


def pieces(count: int, size: int = MB) -> list[dict[str, Any]]:
    return [
        {"type": "http.request", "body": bytes(size), "more_body": number < count - 1}
        for number in range(count)
    ]


TOO_LARGE = (413, Translator("en")("page.upload_too_large", megabytes=2))


def test_body_within_the_limit_is_taken(server):
    assert server.ask(UPLOAD, pieces(2)) == (200, "taken")
    assert server.ask("/x", pieces(1, 10)) == (200, "taken")
    assert server.raised is None


@pytest.mark.parametrize("length", [0, 3 * MB])
def test_too_large_upload_is_read_to_its_end_and_refused(server, length):
    assert server.ask(UPLOAD, pieces(3), length=length) == TOO_LARGE
    assert server.taken == 3, "else no browser shows the answer"
    assert not server.half.exists()
    assert (server.raised is None) == bool(length), "what is announced too large never begins"
    server.language = "ja"
    sentence = Translator("ja")("page.upload_too_large", megabytes=2)
    assert server.ask(UPLOAD, pieces(3), length=length) == (413, sentence)


def test_endless_body_is_read_up_to_a_measure(server):
    assert server.ask(UPLOAD, pieces(1000)) == TOO_LARGE
    assert server.taken < 10


def test_other_bodies_have_a_smaller_limit(server):
    for length in (0, 11):
        assert server.ask("/x", pieces(1, 11), length=length) == (413, "")
    assert server.ask("/x", pieces(0), method="GET", length=11) == (200, "taken"), "it has no body"


def test_upload_that_breaks_off_ends_as_gradio_deletes_it(server):
    server.ask(UPLOAD, [pieces(2)[0], GONE])
    assert isinstance(server.raised, MultiPartException)
    assert server.ask(UPLOAD, [pieces(2, 3 * MB)[0], GONE]) == TOO_LARGE
    server.ask(UPLOAD, pieces(1))
    assert not server.half.exists(), "halves of uploads are deleted afterwards"

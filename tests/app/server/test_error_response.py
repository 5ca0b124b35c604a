"""Answers where answering failed."""

import asyncio
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from webui.eichi_utils.server.error_response import ErrorResponse
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("ja")


def translator(asked: object) -> Translator:
    """The words of the one language that pages ask for here, else those of the app."""
    return Translator("zh-tw") if asked == "zh-tw" else WORDS


def served(answer: Any, path: str = "/x") -> TestClient:
    guard = Middleware(ErrorResponse, translator=translator, uploads=Path("/uploads"))
    return TestClient(Starlette(routes=[Route(path, answer)], middleware=[guard]))


def failing(error: Exception) -> TestClient:
    async def answer(_: Request) -> Response:
        raise error

    return served(answer)


def test_error_is_a_sentence_and_its_traceback_is_logged(caplog):
    caplog.set_level(logging.WARNING, "webui")
    client = failing(KeyError("nope"))
    answer = client.get("/x")
    assert (answer.status_code, "KeyError: 'nope'" in answer.text) == (500, True)
    assert "Traceback" not in answer.text
    assert "Traceback" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"], "the terminal stays quiet"
    assert client.get("/y").status_code == 404


def test_full_disk_is_named():
    answer = failing(OSError(errno.ENOSPC, "No space left")).get("/x")
    assert answer.text == WORDS("error.disk_full", path=str(Path("/uploads")))


def test_a_page_is_answered_in_its_tabs_language():
    answer = failing(OSError(errno.ENOSPC, "No space left")).get("/x", headers={"Accept-Language": "zh-tw"})
    assert answer.text == Translator("zh-tw")("error.disk_full", path=str(Path("/uploads")))


def test_answer_that_has_begun_ends_there(caplog):
    def parts() -> Iterator[bytes]:
        yield b"begun"
        raise KeyError("nope")

    async def answer(_: Request) -> Response:
        return StreamingResponse(parts())

    assert served(answer).get("/x").text == "begun"
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("has_started", [False, True])
def test_file_deleted_while_it_is_fetched_is_not_found(tmp_path, caplog, has_started):
    async def answer(request: Request) -> Response:
        path = tmp_path / request.path_params["name"]
        path.write_bytes(b"notes")
        status = path.stat()
        path.unlink()
        return FileResponse(path, stat_result=status if has_started else None)

    reply = served(answer, "/x/{name}").get("/x/cat.png")
    assert (reply.status_code, reply.text) == (404, WORDS("error.image_missing", image="cat.png"))
    assert "FileNotFoundError" in caplog.text


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a", b"b"]])
def test_answer_starts_with_its_first_piece_or_its_end(pieces):
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        assert sent == []
        for number, piece in enumerate(pieces, 2):
            await send({"type": "http.response.body", "body": piece})
            assert len(sent) == number

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(ErrorResponse(app, translator, Path())({"type": "http", "headers": []}, None, send))
    assert [message.get("status") or message["body"] for message in sent] == [200, *pieces]

"""Answers where answering failed."""

import errno
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from webui.eichi_utils.server.error_response import ErrorResponse
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("ja")
Serve = Callable[[Exception | None], TestClient]


def served(answer: Any) -> TestClient:
    guard = Middleware(ErrorResponse, words=WORDS, uploads=Path("/uploads"))
    return TestClient(Starlette(routes=[Route("/x", answer)], middleware=[guard]))


@pytest.fixture
def serve() -> Serve:
    """A server that fails with an error, or not."""

    def make(error: Exception | None) -> TestClient:
        async def answer(_: Request) -> Response:
            if error is not None:
                raise error
            return PlainTextResponse("here")

        return served(answer)

    return make


def test_answers_without_errors_pass_untouched(serve):
    assert serve(None).get("/x").text == "here"
    assert serve(None).get("/y").status_code == 404


def test_error_is_a_sentence_and_its_traceback_is_logged(serve, caplog):
    caplog.set_level(logging.WARNING, "webui")
    answer = serve(KeyError("nope")).get("/x")
    assert (answer.status_code, "KeyError: 'nope'" in answer.text) == (500, True)
    assert "Traceback" not in answer.text
    assert "Traceback" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"], "the terminal stays quiet"


def test_full_disk_is_named(serve):
    answer = serve(OSError(errno.ENOSPC, "No space left")).get("/x")
    assert answer.text == WORDS("error.disk_full", path=str(Path("/uploads")))


def test_answer_that_has_begun_ends_there(caplog):
    def parts() -> Iterator[bytes]:
        yield b"begun"
        raise KeyError("nope")

    async def answer(_: Request) -> Response:
        return StreamingResponse(parts())

    assert served(answer).get("/x").text == "begun"
    assert "KeyError" in caplog.text

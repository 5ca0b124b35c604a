"""Talking to the app as nobody tidies it up: whole requests, byte by byte."""

import contextlib
import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.support.app import PATIENCE, App

BOUNDARY = "----test"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def ask(
    app: App, path: str, method: str = "GET", body: bytes | Iterable[bytes] = b"", **headers: str
) -> tuple[int, bytes]:
    """Ask for exactly this path; `_` in a header's name stands for `-`. Pieces are sent as chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named)
        is_whole = isinstance(body, bytes)
        named |= {"Content-Length": str(len(body))} if is_whole else {"Transfer-Encoding": "chunked"}
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders()
        if isinstance(body, bytes):
            connection.send(body)
        else:
            for piece in body:
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        return answer.status, answer.read()


def form(name: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The body of an upload of one file, in pieces."""
    disposition = b'Content-Disposition: form-data; name="files"; filename="%s"' % name
    yield b"--%s\r\n%s\r\nContent-Type: image/png\r\n\r\n" % (BOUNDARY.encode(), disposition)
    yield from pieces
    yield b"\r\n--%s--\r\n" % BOUNDARY.encode()


def upload(app: App, name: bytes, content: bytes) -> tuple[int, Any]:
    """Upload a file under exactly these bytes of a name; gives the status, and the path or what was said."""
    status, answer = ask(app, "/gradio_api/upload", "POST", b"".join(form(name, [content])), **MULTIPART)
    return status, json.loads(answer)[0] if status == 200 else answer.decode()

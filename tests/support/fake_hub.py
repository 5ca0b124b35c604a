"""A small HTTP server on this computer that speaks Hugging Face's protocol, as far as a download needs it.

Serves folders as repositories: their lists, and their files as Hugging Face does: large ones (`.safetensors`)
by a redirect to a store under another name of this computer, small ones at once. Does badly what it is told
to, and writes down each request.
"""

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from diffusers_helper.weights.model_files import FRAMEPACK

from .tiny import MODELS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = ".safetensors"
SHARD = "diffusion_pytorch_model-00001-of-00006.safetensors"
"""The largest file of the tiny models, of FramePack's repository."""
SHARD_BYTES = (MODELS / FRAMEPACK / SHARD).stat().st_size
ALL_BYTES = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())


@dataclass
class Trouble:
    """The trouble with one request for a file.

    Attributes:
        status: this answer instead of the file, with these headers.
        break_after: the connection ends after so many bytes of the answer.
        wait_for: the answer stops there until this is set; the connection stays open.
        whole: the range that was asked for is ignored.
        content: other bytes are sent.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    break_after: int | None = None
    wait_for: threading.Event | None = None
    whole: bool = False
    content: bytes | None = None


@dataclass
class Asked:
    """A request with its range and token, and the number of bytes that it got of a file."""

    host: str
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


class FakeHub:
    """The server. `folder` holds `ORG/NAME/...`; started and ended as a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Asked] = []
        self.trouble: dict[str, list[Trouble]] = {}
        """The trouble with the next requests for a file, by the end of its path."""
        self.list_trouble: list[Trouble] = []
        self.token: str | None = None
        """The token without which every request is refused; None: none is needed."""
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = f"http://localhost:{self.port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next_trouble(self, path: str) -> Trouble:
        troubles = (troubles for end, troubles in self.trouble.items() if path.endswith(end) and troubles)
        return next(troubles, [Trouble()]).pop(0)

    def files(self, repository: str) -> dict[str, Path]:
        base = self.folder / repository
        found = (path for path in sorted(base.rglob("*")) if path.is_file())
        return {path.relative_to(base).as_posix(): path for path in found}

    @property
    def sent(self) -> int:
        """Bytes of files sent so far."""
        return sum(asked.sent for asked in self.asked)

    def ranges_of(self, end: str) -> list[str | None]:
        """The ranges that the store was asked for."""
        asked = (asked for asked in self.asked if asked.path.startswith("/store/"))
        return [request.range for request in asked if request.path.endswith(end)]


def describe(path: Path, name: str) -> dict[str, Any]:
    """A file in the list of its repository."""
    data = path.read_bytes()
    entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
    if name.endswith(LARGE):
        entry["blobId"] = git_blob(b"a pointer")
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
    return entry


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)  # a proxy is asked for a whole address
        path = urllib.parse.unquote(parts.path)
        headers = self.headers
        asked = Asked(headers["Host"], path, headers.get("Range"), headers.get("Authorization"))
        self.server_hub.asked.append(asked)
        with contextlib.suppress(ConnectionError):
            self._answer(asked, path)

    def _answer(self, asked: Asked, path: str) -> None:
        hub = self.server_hub
        if stored := re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path):
            self._send_file(asked, hub.folder / stored[1] / stored[2], hub.next_trouble(path))
        elif hub.token is not None and asked.authorization != f"Bearer {hub.token}":
            self._send(401, {"X-Error-Code": "GatedRepo"}, b"{}")
        elif listed := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            self._send_list(listed[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(asked, found[1], found[3])
        else:
            self._send(404, {}, b"{}")

    def _send_list(self, repository: str) -> None:
        hub = self.server_hub
        trouble = hub.list_trouble.pop(0) if hub.list_trouble else Trouble()
        if trouble.status is not None or trouble.content is not None:
            self._send(trouble.status or 200, trouble.headers, trouble.content or b"")
            return
        files = hub.files(repository)
        siblings = [describe(path, name) for name, path in files.items()]
        value = {"id": repository, "sha": COMMIT, "siblings": siblings}
        self._send(200 if files else 404, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _resolve(self, asked: Asked, repository: str, name: str) -> None:
        hub = self.server_hub
        path = hub.files(repository).get(name)
        if path is None:
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        if "lfs" not in describe(path, name):
            self._send_file(asked, path, hub.next_trouble(name))
            return
        self._send(302, {"Location": f"{hub.store}/store/{repository}/{urllib.parse.quote(name)}"}, b"")

    def _send_file(self, asked: Asked, path: Path, trouble: Trouble) -> None:
        if trouble.status is not None:
            self._send(trouble.status, trouble.headers, b"")
            return
        data = path.read_bytes() if trouble.content is None else trouble.content
        start = 0 if trouble.whole or asked.range is None else int(asked.range[6:].partition("-")[0])
        if start >= len(data) > 0:
            self._send(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self._send_body(asked, data[start:], trouble)

    def _send_body(self, asked: Asked, data: bytes, trouble: Trouble) -> None:
        now = data if trouble.break_after is None else data[: trouble.break_after]
        asked.sent += len(now)
        self.wfile.write(now)
        self.wfile.flush()
        if trouble.wait_for is not None:
            trouble.wait_for.wait(60)
        if len(now) < len(data):
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The requests are in `asked`."""


def files_below(folder: Path) -> dict[str, bytes]:
    """The files in a folder and below with their content; a download's lock is none of them."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

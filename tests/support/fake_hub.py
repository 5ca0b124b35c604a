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
    """The trouble with one request for a list or a file.

    Attributes:
        status: this answer instead of the content, with these headers.
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


class FakeHub(ThreadingHTTPServer):
    """The server. `folder` holds `ORG/NAME/...`; started and ended as a `with` block."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[Asked] = []
        self.trouble: dict[str, list[Trouble]] = {}
        """The trouble with the next requests for a file or a repository's list, by the end of its path."""
        self.token: str | None = None
        """The token without which every request is refused; None: none is needed."""
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client may leave whenever it likes."""

    def next_trouble(self, path: str) -> Trouble:
        troubles = (troubles for end, troubles in self.trouble.items() if path.endswith(end) and troubles)
        return next(troubles, [Trouble()]).pop(0)

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
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)  # a proxy is asked for a whole address
        path = urllib.parse.unquote(parts.path)
        headers = self.headers
        asked = Asked(headers["Host"], path, headers.get("Range"), headers.get("Authorization"))
        self.server.asked.append(asked)
        with contextlib.suppress(ConnectionError):
            self._answer(asked, path)

    def _answer(self, asked: Asked, path: str) -> None:
        hub = self.server
        if path.startswith("/store/"):
            self._send_data(asked, (hub.folder / path.removeprefix("/store/")).read_bytes())
        elif hub.token is not None and asked.authorization != f"Bearer {hub.token}":
            self._send(401, {"X-Error-Code": "GatedRepo"})
        elif listed := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self._send_data(asked, self._list(listed[1]))
        elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)) is None:
            self._send(404)
        elif found[2].endswith(LARGE):
            store = f"http://localhost:{hub.server_port}/store"
            self._send(302, {"Location": f"{store}/{found[1]}/{urllib.parse.quote(found[2])}"})
        else:
            self._send_data(asked, (hub.folder / found[1] / found[2]).read_bytes())

    def _list(self, repository: str) -> bytes:
        base = self.server.folder / repository
        files = [path for path in sorted(base.rglob("*")) if path.is_file()]
        siblings = [describe(path, path.relative_to(base).as_posix()) for path in files]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def _send_data(self, asked: Asked, data: bytes) -> None:
        trouble = self.server.next_trouble(asked.path)
        if trouble.status is not None:
            self._send(trouble.status, trouble.headers)
            return
        data = data if trouble.content is None else trouble.content
        start = 0 if trouble.whole or asked.range is None else int(asked.range[6:].partition("-")[0])
        if start > len(data):
            return self._send(416, {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        now = data[start:] if trouble.break_after is None else data[start:][: trouble.break_after]
        if not asked.path.startswith("/api/"):
            asked.sent = len(now)
        self.wfile.write(now)
        self.wfile.flush()
        if trouble.wait_for is not None:
            trouble.wait_for.wait(60)
        if len(now) < len(data) - start:
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The requests are in `asked`."""


def part_sizes(folder: Path) -> list[int]:
    """The bytes of the largest file that have come so far to a folder and below."""
    return [path.stat().st_size for path in folder.rglob(f"{SHARD}.*.part")]


def files_below(folder: Path) -> dict[str, bytes]:
    """The files in a folder and below with their content; a download's lock is none of them."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

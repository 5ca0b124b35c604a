"""Hostile files: bombs, disguises, names that lead elsewhere, and more than there is room for.

Each is refused or harmless, and nothing that is refused stays on the disk.
"""

import hashlib
import io
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.app import App, wait_until
from tests.support.page_client import META, PageClient
from tests.support.page_state import text
from tests.support.pictures import png_chunk, png_file
from tests.support.process_memory import highest, resident, settled
from tests.support.wire import BOUNDARY, MULTIPART, ask, form, upload
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.files import MAX_UPLOAD, MB

WORDS = Translator("en")


@pytest.fixture(scope="module")
def page(app: App) -> Iterator[PageClient]:
    """A page that has seen a picture: with the first one the app begins to import the engine."""
    with PageClient(app.url) as page:
        page.open()
        assert give(page, app, "start-image", "first.png", png(64, 64)) == ""
        yield page


def kept(app: App) -> list[Path]:
    """All files among the uploads."""
    return [path for path in (app.home / "temp" / "uploads").rglob("*") if path.is_file()]


def give(page: PageClient, app: App, place: str, name: str, content: bytes) -> str:
    """Upload a file and put it in its place as a browser does; gives the message on the page."""
    status, path = upload(app, name.encode(), content)
    assert status == 200, path
    file = {"path": path, "meta": META, "orig_name": name}
    return page.choose(place, [file] if place == "inbox" else file)


# -- bombs and disguises -----------------------------------------------------------------------------


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A black PNG, squeezed as far as it goes, with more chunks before its pixels."""
    packer, row = zlib.compressobj(9), bytes(1 + 3 * width)
    rows = [packer.compress(row) for _ in range(height if width * height < 2 * 10**8 else 1)]
    return png_file(width, height, *extra, png_chunk(b"IDAT", b"".join(rows) + packer.flush()))


def bomb(size: int) -> bytes:
    """Returns so many megabytes of zeros, compressed."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MB)) for _ in range(size)) + packer.flush()


def moving(kind: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (64, 64), (number % 256, number // 256, 9)) for number in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


REFUSED: dict[str, Callable[[], bytes]] = {
    "too many pixels": lambda: png(14_000, 14_000),
    "a claim of pixels": lambda: png(60_000, 60_000),
    "a web page": lambda: b"<!doctype html><script>alert(1)</script>",
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit",
}
SQUEEZED: dict[str, Callable[[], bytes]] = {
    "a squeezed text": lambda: png(64, 64, png_chunk(b"zTXt", b"k\0\0" + bomb(100))),
    "many squeezed texts": lambda: png(
        64, 64, *(png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"a" * MB)) for _ in range(300))
    ),
    "a squeezed profile": lambda: png(64, 64, png_chunk(b"iCCP", b"x\0\0" + bomb(300))),
}


@pytest.mark.parametrize(
    "kind",
    ["a squeezed text", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*SQUEEZED][1:])],
)
def test_what_is_squeezed_beside_the_pixels_is_left_alone(app, page, kind):
    content, before = SQUEEZED[kind](), settled(app.pid)
    begun = time.monotonic()
    assert "ichi-error" not in give(page, app, "start-image", "cat.png", content)
    assert time.monotonic() - begun < 10
    assert highest(app.pid) - before < 100 * MB


KINDS = [
    pytest.param(kind, marks=[pytest.mark.slow] if kind == "too many pixels" else []) for kind in REFUSED
]


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_picture_is_refused_and_deleted(app, page, kind):
    content = REFUSED[kind]()
    assert len(content) < 2 * MB
    before = kept(app)
    for place in ("start-image", "end-image", "inbox"):
        begun = time.monotonic()
        said = text(give(page, app, place, "cat.png", content))
        assert said.startswith(("The picture cat.png ", "cat.png is not a picture")), said
        assert str(app.home) not in said
        assert time.monotonic() - begun < 20
        assert page.shown[place] is None or place == "inbox"
        assert kept(app) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_first_of_thousands_of_frames_is_taken_at_once(app, page, kind):
    content = moving(kind, 2000)
    begun = time.monotonic()
    assert "ichi-error" not in give(page, app, "start-image", f"a.{kind.lower()}", content)
    assert time.monotonic() - begun < 10
    assert "64 × 64" in text(page.set(seconds=1).shown["outlook"])


@pytest.mark.slow
def test_picture_of_100_megapixels_needs_bounded_memory(app, page):
    content = png(10_000, 9_990)
    before = settled(app.pid)
    assert "ichi-error" not in give(page, app, "start-image", "large.png", content)
    assert highest(app.pid) - before < 2500 * MB
    wait_until(lambda: resident(app.pid) < before + 300 * MB, "the memory is given back")


# -- names -------------------------------------------------------------------------------------------

NAMES = [
    *("../../x.png", "..\\..\\x.png", "/etc/x.png", "C:\\Windows\\x.png", "C:x.png", "x.png:stream"),
    *("\\\\server\\share\\x.png", "a/../../../x.png", "%2e%2e%2fx.png", "..%2f..%2fx.png", "/tmp/x.png"),
    *("CON", "CON.png", "NUL.png", "LPT1.png", "aux", ".", "..", "...", " ", "x.png.", "x.png ", "-rf.png"),
    *(".htaccess", "x\0.png", "x" * 5000 + ".png", "\u732b" * 1000 + ".png", "\u202egnp.exe", "x\r\ny.png"),
    *("\u200f\u2066x.png", "x\x1b[2J.png", "<script>alert(1)</script>.png", "'; DROP TABLE x; --.png", ""),
    *("$(reboot).png", "a\ud7ff\ufffe.png", "\U0001f431.png", "e\u0301.png"),
]


@pytest.mark.parametrize("name", NAMES)
def test_file_name_leads_nowhere_else(app, page, name):
    uploads = app.home / "temp" / "uploads"
    around = {path for path in app.home.rglob("*") if uploads not in path.parents}
    unique = hashlib.sha256(name.encode("utf-8")).hexdigest().encode()
    content = png(64, 64, png_chunk(b"tEXt", b"k\0" + unique))
    raw = name.encode("utf-8").replace(b"\\", b"\\\\").replace(b'"', b"%22").replace(b"\r\n", b"%0D%0A")
    status, path = upload(app, raw, content)
    if status == 200:
        stored = Path(path).resolve()
        assert stored.parent.parent == uploads.resolve()
        assert all(ord(character) >= 32 for character in stored.name)
        assert len(stored.name.encode()) <= 255
        message = page.choose("start-image", {"path": path, "meta": META, "orig_name": name})
        assert message == "" or text(message).endswith(".")
        assert "<script>" not in message
    else:
        assert status in (400, 413), "too long for a header, or no name"
        assert "Traceback" not in path
    assert {path for path in app.home.rglob("*") if uploads not in path.parents} == around
    wait_until(lambda: not any(path.parent == uploads for path in kept(app)), "no half of it lies about")


# -- more than there is room for ---------------------------------------------------------------------


def large(megabytes: int) -> Iterator[bytes]:
    piece = bytes(MB)
    return form(b"large.png", (piece for _ in range(megabytes)))


@pytest.mark.slow
def test_too_large_upload_is_refused_in_words_and_deleted(app):
    before = kept(app)
    refused = (413, WORDS("page.upload_too_large", megabytes=MAX_UPLOAD // MB).encode())
    for body in (large(500), b"".join(large(500))):  # in chunks, and of a length that is announced
        assert ask(app, "/gradio_api/upload", "POST", body, **MULTIPART) == refused
    assert kept(app) == before


@pytest.mark.parametrize("size", [0, 5 * MB])
def test_upload_that_breaks_off_is_deleted(app, size):
    before = kept(app)
    begin = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {50 * MB}\r\n"
    begin += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        connection.sendall(begin.encode() + next(large(1)) + bytes(size))
        wait_until(lambda: kept(app) != before, "it has begun")
    wait_until(lambda: kept(app) == before, "what had come is deleted")


WHOLE = b"".join(form(b"a.png", [b"x"]))
EMPTY = b"--%s\r\n\r\n\r\n--%s--\r\n" % (BOUNDARY.encode(), BOUNDARY.encode())
BODIES = [b"", b"nothing", EMPTY, WHOLE[:-10], WHOLE.replace(b"image/png", b"x" * 10**5)]
BODIES += [WHOLE.replace(b'name="files"', b'name="others"'), WHOLE.replace(b'; filename="a.png"', b"")]


@pytest.mark.parametrize("body", BODIES)
def test_malformed_upload_leaves_no_file_and_no_traceback(app, body):
    before = kept(app)
    status, said = ask(app, "/gradio_api/upload", "POST", body, **MULTIPART)
    assert status in (200, 400, 413, 422, 500)
    assert b"Traceback" not in said
    wait_until(lambda: kept(app) == before, "it is deleted")
    assert "Traceback" not in app.said()

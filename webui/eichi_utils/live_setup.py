"""What a page shows of the setup, as plain values with all their words in one language."""

from typing import Any

from .download.download import DownloadView
from .download.plan import free_bytes, gigabytes
from .machine.check import line_text, worst_level
from .machine.rules import MODEL_BYTES
from .preflight import SetupView
from .text.durations import spoken
from .text.error_text import failure_text, reason_text
from .text.translations import Translator

MODEL_GB = round(MODEL_BYTES / 1e9)


def setup_state(view: SetupView, words: Translator) -> dict[str, Any] | None:
    """The setup for the page; None where everything is well and nothing is to be said."""
    lines = [line for line in view.lines or () if line.level != "good"]
    download = _download(view, words)
    if not lines and download is None:
        return None
    return {
        "title": words("setup.title_download", size=MODEL_GB)
        if download
        else words("setup.title_check", count=len(lines)),
        "open": worst_level(lines) == "fails" or view.download.state != "idle",
        "lines": [
            dict(zip(("text", "advice"), line_text(line, words), strict=True))
            | {"level": line.level, "mark": words(f"check.mark.{line.level}")}
            for line in lines
        ],
        "download": download,
    }


def _download(view: SetupView, words: Translator) -> dict[str, Any] | None:
    """The offer, or how far it is; None where the models are there, or were not looked for yet."""
    download = view.download
    lacks = view.models is not None and view.models.state != "complete"
    if not lacks and not download.is_running:
        return None
    is_begun = download.state not in ("idle",) or (view.models is not None and view.models.state == "partly")
    return {
        "text": _offer(view, words),
        "status": _status(download, words),
        "fraction": download.done_bytes / download.total_bytes if download.total_bytes else None,
        "action": "cancel" if download.is_running else "start",
        "waits": download.is_stopping,
        "button": words(
            "setup.pause" if download.is_running else "setup.go_on" if is_begun else "setup.download"
        ),
    }


def _offer(view: SetupView, words: Translator) -> str:
    places = view.places
    try:
        free = gigabytes(free_bytes(places.target))
    except OSError:
        free = "?"
    return words("setup.offer", size=MODEL_GB, path=places.target, free=free)


def _status(download: DownloadView, words: Translator) -> str:
    if download.failure is not None:
        return failure_text(download.failure, words)
    if download.is_stopping:
        return words("setup.pausing")
    if download.state in ("asking", "checking"):
        return words(f"setup.{download.state}", file=download.file or "")
    if download.state == "waiting":
        return words("download.waiting", reason=reason_text(download.trouble or "", words))
    if download.state in ("idle", "done"):
        return ""
    done, total = gigabytes(download.done_bytes), gigabytes(download.total_bytes)
    if download.speed is None or download.seconds_left is None:
        return words("setup.amount", done=done, total=total)
    time = spoken(download.seconds_left, words)
    return words("setup.fetching", done=done, total=total, speed=f"{download.speed / 1e6:.1f}", time=time)

"""One app per folder: its lock, and the address under which a second start finds the first."""

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from diffusers_helper.errors import MachineError
from diffusers_helper.public import exclusive_lock

ADDRESS = "app.json"
MAX_HELLO = 10_000
"""Bytes of an answer that are read: any program may have the port."""
STARTING_SECONDS = 30
"""Seconds to wait for the address of an app that is about to start."""


@contextlib.contextmanager
def only_app(home: Path) -> Iterator[bool]:
    """Keep every other app out of this folder while the block runs; False where no lock can do that.

    Raises:
        MachineError: another app has it, or it cannot be written.
    """
    busy = MachineError("app_runs_already", url=running_address(home) or "?")
    with exclusive_lock(home / "temp" / "app.lock", busy) as is_locked:
        (home / "temp" / ADDRESS).unlink(missing_ok=True)  # of an app that has ended
        yield is_locked


def remember_address(home: Path, url: str) -> None:
    """Write down for a second start where this app can be found."""
    with contextlib.suppress(OSError):
        (home / "temp" / ADDRESS).write_text(json.dumps({"url": url}), "utf-8")


def running_address(home: Path) -> str | None:
    """Return the address that the app of this folder wrote down; None before it has."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        return str(json.loads((home / "temp" / ADDRESS).read_text("utf-8"))["url"])
    return None


def running_app(server: str, port: int) -> str | None:
    """Return the address of this app where it answers on that port."""
    host = server if server not in ("0.0.0.0", "::") else "127.0.0.1"
    connection = http.client.HTTPConnection(host, port, timeout=3)
    with contextlib.closing(connection), contextlib.suppress(Exception):  # any program may have that port
        connection.request("GET", "/ichi/hello")
        known = json.loads(connection.getresponse().read(MAX_HELLO))
        if isinstance(known, dict) and known.get("app") == "endframe-ichi":
            return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    return None


def wait_for_app(home: Path) -> str | None:
    """Return the address of the app of this folder once it answers: it may be about to start."""
    end = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < end:
        address = urllib.parse.urlsplit(running_address(home) or "")
        found = running_app(address.hostname, address.port) if address.hostname and address.port else None
        if found is not None:
            return found
        time.sleep(0.2)
    return None

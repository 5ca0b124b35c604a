"""One app per folder: its lock, and the address and process under which a second start finds the first."""

import contextlib
import http.client
import ipaddress
import json
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import psutil

from diffusers_helper.errors import MachineError
from diffusers_helper.public import exclusive_lock, read_small

ADDRESS = "app.json"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_HELLO = 10_000
"""Bytes of an answer that are read: any program may have the port."""
SAME_SECONDS = 1.0
"""Seconds by which a process's own beginning may differ: clocks are set."""
ENDING_SECONDS = 10
"""Seconds that a process may take to end."""
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
        _write_down(home, None)  # in place of an app's that has ended
        yield is_locked


def place_of(folder: Path) -> tuple[int, int] | None:
    """Return the numbers of a folder's disk and of itself; None where it is not there."""
    with contextlib.suppress(OSError):
        status = folder.stat()
        return status.st_dev, status.st_ino
    return None


def is_loopback(server: str) -> bool:
    """Return whether only this computer can reach a server of that address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(server).is_loopback
    return server in LOOPBACK


def remember_address(home: Path, url: str) -> None:
    """Write down for a second start where this app can be found."""
    _write_down(home, url)


def _write_down(home: Path, url: str | None) -> None:
    known: dict[str, object] = {"process": os.getpid(), "begun": psutil.Process().create_time()}
    with contextlib.suppress(OSError):
        (home / "temp" / ADDRESS).write_text(json.dumps(known | ({"url": url} if url else {})), "utf-8")


def end_running_app(home: Path) -> bool:
    """End the process of this folder's app; returns whether it did. What it has finished is kept on the disk.

    A process that only has the number of one that has ended is left alone.
    """
    process = _recorded_process(home)
    if process is None:
        return False
    with contextlib.suppress(psutil.Error):
        for end in (process.terminate, process.kill):
            end()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(ENDING_SECONDS)
            if not _is_alive(process):
                return True
    return not _is_alive(process)


def _recorded_process(home: Path) -> psutil.Process | None:
    """Return the process that wrote itself down in this folder, while there is one."""
    expected = (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError, psutil.Error)
    with contextlib.suppress(*expected):
        known = json.loads(read_small(home / "temp" / ADDRESS, MAX_HELLO))
        process = psutil.Process(int(known["process"]))
        if abs(process.create_time() - float(known["begun"])) <= SAME_SECONDS:
            return process
    return None


def _is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; one that has ended stays known until its parent has asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def running_address(home: Path) -> str | None:
    """Return the address that the app of this folder wrote down; None before it has."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        return str(json.loads(read_small(home / "temp" / ADDRESS, MAX_HELLO))["url"])
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

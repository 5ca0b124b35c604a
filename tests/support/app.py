"""The app as its users run it: a process of its own, on a free port, with tiny models and a fresh folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from webui.eichi_utils.form import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "golden" / "models"
SCRIPT = ROOT / "webui" / "endframe_ichi.py"
PATIENCE = 60.0
"""Seconds that anything may take on a machine with other things to do."""
SMALL: dict[str, Any] = {"resolution": 64, "steps": 2, "seconds": 0.5, "language": "en", "random_seed": True}
"""Settings whose videos take a second or two."""


def wait_until(
    is_so: Callable[[], Any],
    what: str,
    patience: float = PATIENCE,
    pause: Callable[[float], Any] = time.sleep,
) -> Any:
    """Look again and again until something is so; gives what `is_so` gave.

    `pause` waits that many seconds; what lives in a browser needs the browser's own.
    """
    end = time.monotonic() + patience
    while not (answer := is_so()):
        assert time.monotonic() < end, f"waited {patience:.0f} s: {what}"
        pause(0.05)
    return answer


class App:
    """One app in one folder; it may be stopped and started again.

    Args:
        home: the folder of all that the app writes.
        options: more of the command line.
        environment: added to the process's own.
        patience: seconds that a start and an end may take.
    """

    def __init__(
        self,
        home: Path,
        *options: str | Path,
        models: Path = MODELS,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.patience = patience
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.settle_in(home)
        self._options = options
        self.models = models
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {})
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)  # starts would take three times as long
        self._process: subprocess.Popen[bytes] | None = None

    def settle_in(self, home: Path) -> None:
        """Take another folder, into which the one before was moved."""
        self.home, self.outputs = home, home / "outputs"
        self.log = home / "app.log"
        self._settings = home / "settings" / "app_settings.json"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self, *options: str | Path, home: Path | None = None, port: int | None = None) -> list[str]:
        """The command line, as this app's or as another's."""
        places = ["--home", home or self.home, "--models", self.models, "--device", "cpu"]
        line = [sys.executable, SCRIPT, *places, "--port", port or self.port, *self._options, *options]
        return list(map(str, line))

    def start(self) -> None:
        """Start the process, and wait until it says that it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self.command(), stderr=log, stdout=log, env=self._environment)
        try:
            wait_until(self._is_ready, "the app answers", self.patience)
        except AssertionError:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as Ctrl-C does, and look whether it complained of anything."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(self.patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        assert status == 0 or sys.platform == "win32", self.said()
        assert "Traceback" not in self.said()

    def kill(self) -> None:
        """End it as a power cut does."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()

    def run(self, *options: str | Path, **places: Any) -> subprocess.CompletedProcess[str]:
        """A second process with the same command line (or another home or port), until it ends."""
        command = self.command(*options, **places)
        return subprocess.run(
            command,
            env=self._environment,
            timeout=PATIENCE,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def said(self) -> str:
        """Everything that it has said since its last start."""
        return self.log.read_text("utf-8", "replace")

    def keep_settings(self, **settings: Any) -> None:
        """Leave small settings and these, as an earlier page would have; the machine stays known.

        The app reads its file once, so a running one is given them by a page.
        """
        if self._process is not None:
            self._fill_in(DEFAULTS | {"sound": True, "output_folder": "outputs"} | SMALL | settings)
            return
        path = self._settings
        path.parent.mkdir(parents=True, exist_ok=True)
        machine = self.kept_settings().get("machine") if path.exists() else None
        path.write_text(json.dumps(SMALL | {"machine": machine} | settings), "utf-8")

    def _fill_in(self, settings: dict[str, Any]) -> None:
        from tests.support.page_client import PageClient

        language, sound = settings.pop("language"), settings.pop("sound")
        settings["guidance"] = settings.pop("distilled_guidance_scale")
        with PageClient(self.url) as page:
            page.http.post("ichi/form", headers={"X-Endframe-Ichi": "1"})
            page.open().set(**settings).set(sound=sound).set(language=language)

    def kept_settings(self) -> dict[str, Any]:
        """The content of the settings file."""
        kept: dict[str, Any] = json.loads(self._settings.read_text("utf-8"))
        return kept

    def videos(self) -> list[Path]:
        """The videos in the output folder, in the order of their names (their times)."""
        return sorted(self.outputs.glob("*.mp4"))

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        return self.url in self.said()  # in a sentence of whatever language


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

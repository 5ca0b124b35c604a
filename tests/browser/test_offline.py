"""The app with the network cut off: a job is made, and nobody even tries to call out."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.driver import Screen
from tests.browser.find_browser import find_program, no_browser
from tests.support.app import App

REFUSAL = Path(__file__).with_name("offline")
RAISE_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A new network namespace has a loopback that is down (0x8914: SIOCSIFFLAGS, 1 | 64: up and running)."""


def isolation() -> list[str]:
    """The command that runs a program without a network; empty where that is not permitted."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return []
    python = [sys.executable, "-c", RAISE_LOOPBACK]
    for unshare in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        trial = [*unshare, *python, sys.executable, "-c", "pass"]
        if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            return [*unshare, *python]
    return []


def refusal(asked: Path) -> dict[str, str]:
    """The environment of a Python that refuses to talk to anybody else, and writes down the attempts."""
    return {"PYTHONPATH": str(REFUSAL), "ASKED_OF_THE_NETWORK": str(asked)}


def asked_file(app: App) -> Path:
    return app.home / "asked.txt"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app without a network, that writes down what it would have asked of one."""
    home = tmp_path_factory.mktemp("app")
    app = App(home, before=isolation(), environment=refusal(home / "asked.txt"))
    app.keep_settings()
    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="module")
def browser(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser in the same network as the app."""
    with sync_playwright() as playwright:
        program = find_program(playwright)
        if program is None:
            no_browser()
        elif app.is_isolated:
            program = enter_network_of(app, program, tmp_path_factory.mktemp("browser") / "browser.sh")
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def enter_network_of(app: App, program: str, script: Path) -> str:
    """A script that starts a program in the app's network."""
    user = ["--user", "--preserve-credentials"] if os.getuid() else []
    line = shlex.join(["nsenter", "--target", str(app.pid), "--net", *user, program])
    script.write_text(f'#!/bin/sh\nexec {line} "$@"\n', "utf-8")
    script.chmod(0o700)
    return str(script)


def test_a_video_is_made_and_nothing_is_asked_of_the_network(screen: Screen, app: App, pictures):
    screen.choose_start(pictures["red"])
    screen.make_video()
    assert len(app.videos()) == 1
    assert not asked_file(app).exists(), asked_file(app).read_text("utf-8")


def test_what_is_asked_of_the_network_would_be_noticed(tmp_path):
    environment = os.environ | refusal(tmp_path / "asked.txt")
    for question in ("create_connection(('192.0.2.1', 80), 1)", "getaddrinfo('huggingface.co', 443)"):
        trial = [sys.executable, "-c", f"import socket; socket.{question}"]
        assert subprocess.run(trial, env=environment, capture_output=True, check=False).returncode == 1
    asked = (tmp_path / "asked.txt").read_text("utf-8")
    assert "192.0.2.1" in asked
    assert "huggingface.co" in asked

"""Fixtures that many tests start from: the command in this process, a running app, a picture."""

import ctypes
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from scripts.torch_build import find_dlls

find_dlls()  # before anything imports torch

from tests.support.app import SMALL, App  # noqa: E402
from tests.support.command import Command  # noqa: E402
from tests.support.error_values import checked_values  # noqa: E402
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN  # noqa: E402


@pytest.fixture(autouse=True)
def sentences_get_their_values() -> Iterator[None]:
    """Every error and notice that is raised in a test has the values that its sentence shows."""
    with checked_values() as wrong:
        yield
    assert wrong == []


@pytest.fixture
def command(tmp_path, capsys, caplog) -> Command:
    return Command(tmp_path, capsys, caplog)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A running app with small settings that speaks English; the tests of a module share it."""
    app = App(tmp_path_factory.mktemp("app"), environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings(**SMALL)
    app.start()
    yield app
    app.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape odd letters in reports, which must pass from one process to the other."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The API of Windows, which this system pretends to be."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "windll", windows := Mock(), raising=False)
    return windows


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (96, 64), "red").save(path)
    return path

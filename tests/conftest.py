"""Fixtures that many tests start from: the command in this process, a picture."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import Command
from tests.support.error_values import checked_values


@pytest.fixture(autouse=True)
def sentences_get_their_values() -> Iterator[None]:
    """Every error and notice that is raised in a test has the values that its sentence shows."""
    with checked_values() as wrong:
        yield
    assert wrong == []


@pytest.fixture
def command(tmp_path, capsys, caplog) -> Command:
    return Command(tmp_path, capsys, caplog)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape odd letters in reports, which must pass from one process to the other."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (96, 64), "red").save(path)
    return path

"""Files that are written as a whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from diffusers_helper.files import atomic
from diffusers_helper.files.atomic import atomic_write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_text("old")
    return path


def test_a_written_part_replaces_the_file(path):
    with atomic_write(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, number):
    def fsync(_: int) -> None:
        raise OSError(number, "broken")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="broken"), atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_without_flush_is_written_all_the_same(path, monkeypatch):
    def fsync(_: int) -> None:
        raise OSError(errno.EINVAL, "cannot flush")

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(("winerror", "failures", "tries"), [(5, 2, 3), (32, 2, 3), (32, 9, 3), (None, 1, 1)])
def test_a_rename_that_windows_refuses_is_retried(path, monkeypatch, winerror, failures, tries):
    done: list[Path] = []
    replace = Path.replace

    def refuse(source: Path, target: Path) -> Path:
        done.append(source)
        if len(done) > failures:
            return replace(source, target)
        error = PermissionError(errno.EACCES, "in use")
        if winerror is not None:
            error.winerror = winerror  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(atomic, "PAUSES", (0, 0))
    if failures < tries:
        with atomic_write(path) as part:
            part.write_text("new")
    else:
        with pytest.raises(PermissionError), atomic_write(path) as part:
            part.write_text("new")
    assert len(done) == tries
    assert path.read_text() == ("new" if failures < tries else "old")

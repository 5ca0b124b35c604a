"""Files that are written as a whole or not at all."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.files import atomic
from diffusers_helper.files.atomic import atomic_write, delete_file, new_file


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


@pytest.mark.parametrize(
    ("number", "is_written"), [(errno.ENOSPC, False), (errno.EIO, False), (errno.EINVAL, True)]
)
def test_a_write_that_fails_leaves_the_old_file_unless_there_is_nothing_to_flush(
    path, monkeypatch, number, is_written
):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(number, "broken")))
    expected = contextlib.nullcontext() if is_written else pytest.raises(OSError, match="broken")
    with expected, atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == ("new" if is_written else "old")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("system", "failures", "succeeds"), [("win32", 2, True), ("win32", 9, False), ("linux", 2, False)]
)
@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (Path, "unlink"), (os, "open")])
def test_a_change_that_windows_refuses_for_a_moment_is_retried(
    path, monkeypatch, owner, name, system, failures, succeeds
):
    change, refusals = getattr(owner, name), iter(range(failures))

    def refuse(*arguments: Any, **options: Any) -> Any:
        if next(refusals, None) is not None:
            raise PermissionError(errno.EACCES, "in use")
        return change(*arguments, **options)

    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(atomic, "PAUSES", (0, 0))
    with contextlib.nullcontext() if succeeds else pytest.raises(PermissionError):
        with atomic_write(path) as part:
            part.write_text("new")
        delete_file(path)
    assert path.exists() is not succeeds
    assert succeeds or path.read_text() == ("new" if name == "unlink" else "old")


def test_a_new_file_has_its_folder_or_is_an_error_in_words(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with new_file(path) as part:
        part.write_text("x")
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(MachineError) as caught, new_file(path / "b.txt"):
        pass
    assert str(path) in str(caught.value.values["path"])

"""Small JSON files: read once, set aside where broken, written whole, never overwritten unread."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from webui.eichi_utils.settings import json_file
from webui.eichi_utils.settings.json_file import JsonFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "app.json"


def opened(path: Path, content: bytes | None = None) -> JsonFile:
    """The file after its content was written, if any."""
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return JsonFile(path)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"prompt": "猫\n", "steps": 16}, '{\n  "prompt": "猫\\n",\n  "steps": 16\n}\n'),
        ({"a": "\ud800", "b": "\\\ud800猫"}, '{\n  "a": "\\ud800",\n  "b": "\\\\\\ud800猫"\n}\n'),
    ],
    ids=["readable", "half a character"],
)
def test_written_value_is_readable_and_comes_back(path, value, written):
    file = opened(path)
    assert (file.value, file.notices) == ({}, []), "there is none yet"
    file.write(value)
    assert path.read_text("utf-8") == written
    assert opened(path).value == value
    assert names(path) == ["app.json"]
    assert opened(path, b"\xef\xbb\xbf" + path.read_bytes()).value == value, "Windows editors mark UTF-8"


BROKEN = {
    "empty": b"",
    "cut short": b"{",
    "not UTF-8": b'{"a": "\xff"}',
    "other shape": b"[1]",
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "deep": b"[" * 100_000,
    "deep for a copy": b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    "long number": b'{"a": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_set_aside_and_written_anew(path, content):
    file = opened(path, content)
    assert file.value == {}
    assert (path.parent / "app.broken-1.json").read_bytes() == content
    assert file.notices == [Notice("file_set_aside", {"path": str(path), "kept": "app.broken-1.json"})]
    file.write({"a": 1})
    assert opened(path).value == {"a": 1}
    opened(path, content)
    assert names(path) == ["app.broken-1.json", "app.broken-2.json"], "the first stays"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
def test_pipe_in_its_place_is_set_aside_without_waiting(path):
    path.parent.mkdir()
    os.mkfifo(path)
    assert [notice.code for notice in opened(path).notices] == ["file_set_aside"]
    assert names(path) == ["app.broken-1.json"]


def test_size_is_limited_both_ways(path, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    file = opened(path, b'{"a": "12345678"}')
    assert (file.value, names(path)) == ({}, ["app.broken-1.json"])
    with pytest.raises(MachineError, match="file_too_full"):
        file.write({"a": "12345678"})
    assert not path.exists()


@pytest.mark.parametrize(("content", "refused"), [(b"broken", "rename"), (b'{"a": 1}', "read_bytes")])
def test_unusable_file_is_not_overwritten_until_moved(path, monkeypatch, content, refused):
    with monkeypatch.context() as patch:
        patch.setattr(Path, refused, Mock(side_effect=PermissionError(13, "locked")))
        file = opened(path, content)
    assert file.value == {}
    assert file.notices == [Notice("file_unusable", {"path": str(path), "reason": "locked"})]
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})
    assert path.read_bytes() == content
    path.rename(path.with_name("mine.json"))
    file.write({"b": 2})
    assert opened(path).value == {"b": 2}


def test_folder_in_its_place_and_unwritable_folder_are_errors(path):
    path.parent.write_text("a file where the folder would be")
    with pytest.raises(MachineError, match=r"cannot_write|file_in_the_way"):
        opened(path).write({})
    path.parent.unlink()
    path.mkdir(parents=True)
    file = opened(path)
    assert (file.value, [notice.code for notice in file.notices]) == ({}, ["file_unusable"])
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})


def test_full_disk_leaves_the_old_file(path, monkeypatch):
    file = opened(path, b'{"a": 1}')
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(MachineError, match="disk_full"):
        file.write({"a": 2})
    assert json.loads(path.read_bytes()) == {"a": 1}
    assert names(path) == ["app.json"]

"""Small JSON files: read, set aside where broken, written whole, never overwritten unread."""

import json
import os
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from webui.eichi_utils.settings import json_file
from webui.eichi_utils.settings.json_file import JsonFile


def is_object(value: object) -> bool:
    return isinstance(value, dict)


@pytest.fixture
def file(tmp_path: Path) -> JsonFile:
    return JsonFile(tmp_path / "folder" / "app.json", is_object)


def put(file: JsonFile, content: bytes) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content)


def names(file: JsonFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.iterdir())


def refuse(*_: object) -> None:
    raise PermissionError(13, "locked")


def test_a_missing_file_holds_nothing_and_that_is_no_news(file):
    assert file.read() is None
    assert file.notices == []


def test_what_is_written_is_read_again(file):
    file.read()
    file.write({"prompt": "猫\n", "steps": 16})
    assert JsonFile(file.path, is_object).read() == {"prompt": "猫\n", "steps": 16}
    assert names(file) == ["app.json"]


def test_the_file_can_be_read_by_people(file):
    file.read()
    file.write({"prompt": "猫"})
    assert file.path.read_bytes() == '{\n  "prompt": "猫"\n}\n'.encode()


def test_the_mark_that_windows_editors_put_in_front_is_no_harm(file):
    put(file, b'\xef\xbb\xbf{"a": 1}')
    assert file.read() == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": "\xff"}',
        b"[1]",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=[
        "empty",
        "cut short",
        "not UTF-8",
        "other shape",
        "NaN",
        "infinite",
        "deep",
        "long number",
        "UTF-16",
    ],
)
def test_a_broken_file_is_renamed_and_told_once(file, content):
    put(file, content)
    assert file.read() is None
    assert names(file) == ["app.broken-1.json"]
    assert (file.path.parent / "app.broken-1.json").read_bytes() == content
    assert [notice.code for notice in file.notices] == ["file_set_aside"]
    assert file.notices[0].values == {"path": str(file.path), "kept": "app.broken-1.json"}


def test_a_file_that_is_far_too_large_is_set_aside_unread(file, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    put(file, b'{"a": "12345678"}')
    assert file.read() is None
    assert names(file) == ["app.broken-1.json"]


def test_a_second_broken_file_does_not_replace_the_first(file):
    for content in (b"one", b"two"):
        put(file, content)
        file.read()
    assert names(file) == ["app.broken-1.json", "app.broken-2.json"]
    assert (file.path.parent / "app.broken-1.json").read_bytes() == b"one"


def test_after_a_broken_file_was_set_aside_a_new_one_is_written(file):
    put(file, b"broken")
    file.read()
    file.write({"a": 1})
    assert json.loads(file.path.read_text()) == {"a": 1}


def test_a_broken_file_that_cannot_be_renamed_is_told_and_not_overwritten(file, monkeypatch):
    put(file, b"broken")
    monkeypatch.setattr(Path, "rename", refuse)
    assert file.read() is None
    assert file.read() is None
    assert [notice.code for notice in file.notices] == ["file_unusable"]
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})
    assert file.path.read_bytes() == b"broken"


def test_once_it_can_be_renamed_it_can_be_written(file, monkeypatch):
    put(file, b"broken")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        file.read()
    assert file.has_changed()
    file.read()
    file.write({"a": 1})
    assert names(file) == ["app.broken-1.json", "app.json"]


def test_a_file_that_cannot_be_opened_is_not_overwritten(file, monkeypatch):
    put(file, b'{"a": 1}')
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        assert file.read() is None
    assert file.notices[0].values == {"path": str(file.path), "reason": "locked"}
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})
    assert file.path.read_bytes() == b'{"a": 1}'


def test_a_folder_in_its_place_is_left_alone(file):
    file.path.mkdir(parents=True)
    assert file.read() is None
    assert [notice.code for notice in file.notices] == ["file_unusable"]
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})


def test_a_file_that_was_never_read_is_not_overwritten(file):
    put(file, b'{"a": 1}')
    with pytest.raises(MachineError, match="file_in_the_way"):
        file.write({})


def test_it_knows_when_somebody_else_wrote_the_file(file):
    file.read()
    file.write({"a": 1})
    assert not file.has_changed()
    put(file, b'{"a": 12}')
    assert file.has_changed()
    file.read()
    assert not file.has_changed()
    file.path.unlink()
    assert file.has_changed()


def test_a_folder_that_cannot_be_written_is_a_failure_with_a_sentence(file):
    file.path.parent.write_text("a file where the folder would be")
    file.read()
    with pytest.raises(MachineError, match=r"cannot_write|file_in_the_way"):
        file.write({})


def test_a_full_disk_leaves_the_old_file_as_it_was(file, monkeypatch):
    file.read()
    file.write({"a": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="disk_full"):
        file.write({"a": 2})
    assert JsonFile(file.path, is_object).read() == {"a": 1}
    assert names(file) == ["app.json"]


def test_a_file_that_somebody_holds_for_a_moment_is_written_after_it(file, monkeypatch):
    file.read()
    monkeypatch.setattr(json_file, "_PAUSES", (0, 0))
    failures = iter([5, 32])
    replace = Path.replace

    def held_twice(part: Path, target: Path) -> Path:
        for code in failures:
            error = PermissionError(13, "in use")
            error.winerror = code
            raise error
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", held_twice)
    file.write({"a": 1})
    assert json.loads(file.path.read_text()) == {"a": 1}


def test_it_is_never_written_so_large_that_it_could_not_be_read(file, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    file.read()
    with pytest.raises(MachineError, match="file_too_full"):
        file.write({"a": "12345678"})
    assert not file.path.exists()


def test_half_a_character_in_a_text_survives(file):
    file.read()
    file.write({"a": "\ud800", "b": "猫"})
    assert JsonFile(file.path, is_object).read() == {"a": "\ud800", "b": "猫"}

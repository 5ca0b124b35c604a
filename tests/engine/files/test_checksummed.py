"""Files that tell by themselves whether they are whole."""

import errno
import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.files.checksummed import CHUNK, read_metadata, write_checksummed


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
def test_content_lies_in_front_and_facts_come_back(tmp_path, size):
    path, content = tmp_path / "a", b"\x07" * size
    write_checksummed(path, [content[: size // 2], content[size // 2 :]], {"frames": 3, "name": "猫"})
    assert path.read_bytes()[:size] == content
    assert read_metadata(path) == {"frames": 3, "name": "猫"}


def test_every_changed_cut_or_added_byte_is_noticed(tmp_path):
    path = tmp_path / "a"
    write_checksummed(path, [b"some content"], {"n": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        assert read_metadata(path) is None
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert read_metadata(path) is None
    path.write_bytes(whole + b"\0")
    assert read_metadata(path) is None
    path.write_bytes(whole)
    assert read_metadata(path) == {"n": 1}


def test_what_is_no_such_file_has_no_facts(tmp_path):
    assert read_metadata(tmp_path / "missing") is None
    (tmp_path / "circle").symlink_to("circle")
    assert read_metadata(tmp_path / "circle") is None
    assert read_metadata(tmp_path) is None
    (tmp_path / "text").write_text(json.dumps({"n": 1}) * 50)
    assert read_metadata(tmp_path / "text") is None


def test_a_folder_has_no_facts_on_windows_either(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    assert read_metadata(tmp_path) is None


def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch):
    write_checksummed(tmp_path / "a", [b"content"], {})
    monkeypatch.setattr(Path, "open", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
    with pytest.raises(OSError, match="Too many"):
        read_metadata(tmp_path / "a")

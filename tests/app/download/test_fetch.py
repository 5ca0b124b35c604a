"""Partial files are continued and checked, never mixed; a full disk is reported; waits grow."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from tests.support.fake_hub import git_blob
from webui.eichi_utils.download import fetch
from webui.eichi_utils.download.fetch import Backoff, PartFile
from webui.eichi_utils.download.hub import ConnectionLost
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import part_path

CONTENT = bytes(range(256)) * 100
LARGE = RemoteFile("a/b", "c", len(CONTENT), checksum=hashlib.sha256(CONTENT).hexdigest())
SMALL = RemoteFile("a/b", "c", len(CONTENT), checksum=git_blob(CONTENT))
UNKNOWN = RemoteFile("a/b", "c", len(CONTENT))


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "folder" / "c"


def append(target: Path, data: bytes, file: RemoteFile = LARGE, source: Path | None = None) -> PartFile:
    """Put bytes behind those that are there, or behind a copy of the source."""
    with PartFile.open(target, file, source) as part:
        part.append(data)
    return part


@pytest.mark.parametrize("file", [LARGE, SMALL, UNKNOWN])
def test_a_file_is_continued_until_it_is_right(target, file):
    part = append(target, CONTENT[:1000], file)
    assert (part.num_bytes, part.is_intact) == (1000, False)
    assert append(target, CONTENT[1000:], file).is_intact
    assert part_path(target, file).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"x" + CONTENT[1:], CONTENT + b"more"])
@pytest.mark.parametrize("file", [LARGE, SMALL])
def test_a_wrong_byte_and_a_byte_too_many_are_noticed(target, file, content):
    assert not append(target, content, file).is_intact


@pytest.mark.parametrize("can_link", [True, False])
def test_a_copy_on_this_computer_is_used(target, tmp_path, monkeypatch, can_link):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    source, link = tmp_path / "blob", tmp_path / "snapshot"
    source.write_bytes(CONTENT)
    link.symlink_to(source)
    part = append(target, b"", source=link)
    assert part.is_intact
    assert not part.path.is_symlink()
    assert part.path.samefile(source) == can_link


def test_a_copy_that_became_shorter_is_not_written_to(target, tmp_path):
    source = tmp_path / "blob"
    source.write_bytes(CONTENT[:500])
    assert append(target, CONTENT, source=source).is_intact
    assert source.read_bytes() == CONTENT[:500]


def test_a_copy_that_is_gone_is_fetched(target, tmp_path):
    assert append(target, CONTENT, source=tmp_path / "gone").is_intact


def test_a_disk_that_takes_less_than_asked_is_asked_again(target):
    class Slow:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            return self.file.write(data[:1000])  # type: ignore[attr-defined]

    with PartFile.open(target, LARGE, None) as part:
        part._file = Slow(part._file)  # type: ignore[assignment]
        part.append(CONTENT)
    assert part.is_intact
    assert part.path.read_bytes() == CONTENT


def test_waits_grow_and_servers_can_lengthen_them(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    backoff = Backoff("host", (1.0, 2.0))
    backoff.wait(ConnectionLost("x"))
    backoff.wait(ConnectionLost("x", pause=7.0))
    with pytest.raises(MachineError) as caught:
        backoff.wait(ConnectionLost("the last reason"))
    assert caught.value.values == {"host": "host", "reason": "the last reason"}
    backoff.reset()
    backoff.wait(ConnectionLost("x", pause=0.5))
    assert waits == [1.0, 7.0, 1.0]

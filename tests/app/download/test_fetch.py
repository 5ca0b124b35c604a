"""A file is continued, checked and taken from a copy on this computer; waits grow."""

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusers_helper.errors import MachineError
from tests.support.fake_hub import git_blob
from webui.eichi_utils.download.fetch import Fetcher
from webui.eichi_utils.download.hub import ConnectionLost
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import DownloadPlan, part_path
from webui.eichi_utils.download.progress import Progress

CONTENT = bytes(range(256)) * 100
LARGE = RemoteFile("a/b", "c", len(CONTENT), checksum=hashlib.sha256(CONTENT).hexdigest())
SMALL = RemoteFile("a/b", "c", len(CONTENT), checksum=git_blob(CONTENT))
UNKNOWN = RemoteFile("a/b", "c", len(CONTENT))


class Wire:
    """A hub that sends one content after another, and notes from where on it was asked."""

    host = "host"

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)
        self.offsets: list[int] = []

    def read(self, _file: RemoteFile, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        content = self.contents.pop(0)
        yield content[offset:]


def fetch(folders: ModelFolders, file: RemoteFile, *contents: bytes) -> list[int]:
    """Fetch a file; returns from where on the hub was asked."""
    wire = Wire(*contents)
    progress = Progress(lambda _: None)
    progress.plan(DownloadPlan({file: 0}, file.size))
    Fetcher(folders, progress, hub=wire).fetch(file)  # type: ignore[arg-type]
    assert (folders.target / file.name).read_bytes() == CONTENT
    return wire.offsets


@pytest.mark.parametrize("file", [LARGE, SMALL, UNKNOWN])
def test_a_file_is_continued_where_it_ended(folders, file):
    part = part_path(folders.target / file.name, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    assert fetch(folders, file, CONTENT) == [1000]
    assert not part.exists()


@pytest.mark.parametrize("wrong", [b"x" + CONTENT[1:], CONTENT + b"more"])
@pytest.mark.parametrize("file", [LARGE, SMALL])
def test_a_wrong_byte_and_a_byte_too_many_are_noticed(folders, file, wrong):
    assert fetch(folders, file, wrong, CONTENT) == [0, 0]


@pytest.mark.parametrize("can_link", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b"x" + CONTENT[1:], CONTENT[:500]])
def test_a_copy_on_this_computer_is_used_if_it_is_whole(folders, tmp_path, monkeypatch, can_link, content):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    source, link = tmp_path / "blob", folders.caches[0] / "a" / "b" / "c"
    source.write_bytes(content)
    link.parent.mkdir(parents=True)
    link.symlink_to(source)
    assert fetch(folders, LARGE, CONTENT) == ([] if content == CONTENT else [0])
    found: Path = folders.target / LARGE.name
    assert not found.is_symlink()
    assert found.samefile(source) == (can_link and content == CONTENT)
    assert source.read_bytes() == content


def test_waits_grow_and_servers_can_lengthen_them(folders, monkeypatch):
    waits: list[float] = []
    lost = [ConnectionLost("x"), ConnectionLost("x", 7.0), ConnectionLost("the last reason")]

    def refuse(*_: object) -> None:
        raise lost.pop(0)

    monkeypatch.setattr(time, "sleep", waits.append)
    hub = SimpleNamespace(host="host", list_files=refuse)
    with pytest.raises(MachineError) as caught:
        Fetcher(folders, Progress(lambda _: None), (1.0, 2.0), hub).fetch_all(False)  # type: ignore[arg-type]
    assert caught.value.values == {"host": "host", "reason": "the last reason"}
    assert waits == [1.0, 7.0]

"""A copy on this computer is linked or copied; content without a checksum is taken; waits grow."""

import errno
import hashlib
import os
import time
from types import SimpleNamespace

import pytest

from diffusers_helper.errors import MachineError
from webui.eichi_utils.download.fetch import Fetcher
from webui.eichi_utils.download.hub import ConnectionLost
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import DownloadPlan, part_path
from webui.eichi_utils.download.progress import Progress

CONTENT = bytes(range(256)) * 100
FILE = RemoteFile("a/b", "c", len(CONTENT), checksum=hashlib.sha256(CONTENT).hexdigest())
UNKNOWN = RemoteFile("a/b", "c", len(CONTENT))


def fetch(folders: ModelFolders, file: RemoteFile) -> int:
    """Fetch a file; returns the bytes that came from the hub."""
    progress, came = Progress(lambda _: None), []
    progress.plan(DownloadPlan({file: 0}, file.size))
    hub = SimpleNamespace(host="host", read=lambda _, offset: came.append(CONTENT[offset:]) or came)
    Fetcher(folders, progress, hub=hub).fetch(file)  # type: ignore[arg-type]
    assert (folders.target / file.name).read_bytes() == CONTENT
    return sum(map(len, came))


def test_a_file_without_a_checksum_is_continued_and_taken(folders):
    part = part_path(folders.target / UNKNOWN.name, UNKNOWN)
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    assert fetch(folders, UNKNOWN) == len(CONTENT) - 1000


@pytest.mark.parametrize("can_link", [True, False])
@pytest.mark.parametrize("num_bytes", [len(CONTENT), 500])
def test_a_copy_on_this_computer_is_used_if_it_is_whole(folders, tmp_path, monkeypatch, can_link, num_bytes):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    source, link = tmp_path / "blob", folders.caches[0] / FILE.name
    source.write_bytes(CONTENT[:num_bytes])
    link.parent.mkdir(parents=True)
    link.symlink_to(source)
    is_whole = num_bytes == FILE.size
    assert fetch(folders, FILE) == (0 if is_whole else FILE.size)
    found = folders.target / FILE.name
    assert not found.is_symlink()
    assert found.samefile(source) == (can_link and is_whole)
    assert source.stat().st_size == num_bytes


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

"""Half files: gone on with, checked, never mixed, and told where the disk has no room."""

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError, StopRequested
from tests.support.fake_hub import git_blob
from webui.eichi_utils import download_part
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download_part import PartFile, free_bytes, is_right, part_path

CONTENT = bytes(range(256)) * 100
LARGE = RemoteFile("a/b", "c.safetensors", len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
SMALL = RemoteFile("a/b", "c.json", len(CONTENT), blob=git_blob(CONTENT))


def alive() -> None:
    """Nobody asked to stop."""


def stopped() -> None:
    raise StopRequested


def open_part(target: Path, source: Path | None = None, file: RemoteFile = LARGE) -> PartFile:
    return PartFile.open(target, file, source, alive)


def append(part: PartFile, data: bytes) -> None:
    with part.appending() as put:
        put(data)


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "folder" / "c.safetensors"


@pytest.mark.parametrize("file", [LARGE, SMALL])
def test_a_file_that_comes_in_pieces_is_right(target, file):
    part = open_part(target, file=file)
    append(part, CONTENT[:1000])
    assert not part.is_whole
    append(part, CONTENT[1000:])
    assert part.is_right
    part.finish(target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_what_is_there_is_gone_on_with(target):
    append(open_part(target), CONTENT[:1000])
    part = open_part(target)
    assert part.have == 1000
    append(part, CONTENT[1000:])
    assert part.is_right


def test_bytes_beyond_the_size_are_not_taken(target):
    part = open_part(target)
    append(part, CONTENT + b"more")
    assert part.is_right


def test_a_wrong_byte_is_noticed_and_nothing_of_it_is_kept(target):
    part = open_part(target)
    append(part, b"x" + CONTENT[1:])
    assert part.is_whole
    assert not part.is_right
    assert part.throw_away() == len(CONTENT)
    assert list(target.parent.iterdir()) == []
    append(part, CONTENT)
    assert part.is_right


def test_more_than_the_file_is_not_right(target):
    target.parent.mkdir()
    part_path(target, LARGE).write_bytes(CONTENT + b"more")
    part = open_part(target)
    assert part.is_whole
    assert not part.is_right


def test_a_half_file_of_another_version_is_not_gone_on_with(target):
    append(open_part(target), CONTENT[:1000])
    newer = RemoteFile("a/b", "c.safetensors", 10, sha256=hashlib.sha256(b"0123456789").hexdigest())
    part = open_part(target, file=newer)
    assert part.have == 0
    assert list(target.parent.iterdir()) == []


def test_half_files_of_others_stay(target):
    target.parent.mkdir()
    other = target.with_name(f"{target.name}.index.json.0123456789ab.part")
    other.write_bytes(b"{")
    open_part(target)
    assert other.exists()


def test_without_a_checksum_the_size_decides(target):
    part = open_part(target, file=RemoteFile("a/b", "c.json", 3))
    append(part, b"abc")
    assert part.is_right


def test_a_copy_on_this_computer_is_taken_without_using_room(target, tmp_path):
    source = tmp_path / "blob"
    source.write_bytes(CONTENT)
    link = tmp_path / "snapshot"
    link.symlink_to(source)
    part = open_part(target, link)
    assert part.is_right
    part.finish(target)
    assert not target.is_symlink()
    assert target.samefile(source)


def test_where_no_second_name_can_be_had_a_copy_is_made(target, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "blob"
    source.write_bytes(CONTENT)
    part = open_part(target, source)
    assert part.is_right
    assert not part.path.samefile(source)


def test_a_copy_that_became_shorter_is_not_written_to(target, tmp_path):
    source = tmp_path / "blob"
    source.write_bytes(CONTENT[:500])
    part = open_part(target, source)
    append(part, CONTENT[part.have :])
    assert part.is_right
    assert source.read_bytes() == CONTENT[:500]


def test_a_copy_that_is_gone_is_no_harm(target, tmp_path):
    assert open_part(target, tmp_path / "gone").have == 0


def test_reading_what_is_there_can_be_stopped(target):
    append(open_part(target), CONTENT)
    with pytest.raises(StopRequested):
        PartFile.open(target, LARGE, None, stopped)
    assert part_path(target, LARGE).stat().st_size == len(CONTENT)


def test_a_file_that_is_there_can_be_checked(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(CONTENT)
    assert is_right(path, LARGE, alive)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert not is_right(path, LARGE, alive)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(MachineError, match="cannot_write"):
        open_part(tmp_path / "folder" / "c.safetensors")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 16 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_told_and_can_be_gone_on_from(small_disk, tmp_path):
    part = open_part(small_disk / "c.safetensors")
    with pytest.raises(MachineError) as caught:
        append(part, CONTENT)
    assert caught.value.code == "disk_full"
    assert caught.value.values == {"path": str(small_disk)}
    there = part.path.read_bytes()
    assert 0 < len(there) < len(CONTENT)
    moved = tmp_path / "roomy" / part.path.name
    moved.parent.mkdir()
    moved.write_bytes(there)
    again = open_part(moved.with_name("c.safetensors"))
    assert again.have == len(there)
    append(again, CONTENT[again.have :])
    assert again.is_right


def test_a_disk_that_gets_full_in_the_middle_of_a_write_leaves_the_count_right(target, monkeypatch):
    part = open_part(target)
    room = 1000

    class Full:
        """A file that takes 1000 bytes: one write takes less than asked, the next nothing."""

        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            nonlocal room
            if room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken, room = min(room, len(data)), room - min(room, len(data))
            return self.file.write(data[:taken])  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest, **named: Full(real(path, *rest, **named)))
    with pytest.raises(MachineError, match="disk_full"):
        append(part, CONTENT)
    monkeypatch.undo()
    assert part.have == 1000
    append(part, CONTENT[1000:])
    assert part.is_right


def test_the_free_room_of_a_folder_that_is_not_there_yet_is_its_disks(tmp_path):
    known = shutil.disk_usage(tmp_path).free
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(known, rel=0.05)


def test_renaming_waits_for_a_virus_scanner(target, monkeypatch):
    part = open_part(target)
    append(part, CONTENT)
    fails = [1, 1]
    real = Path.replace

    def busy(path: Path, to: Path) -> Path:
        if fails:
            fails.pop()
            error = PermissionError(errno.EACCES, "in use")
            error.winerror = 32  # type: ignore[attr-defined]
            raise error
        return real(path, to)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(download_part, "_PAUSES", (0.0, 0.0))
    part.finish(target)
    assert target.read_bytes() == CONTENT

"""The folder of uploads: files that stay and files that are deleted."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.app import wait_until
from webui.eichi_utils.uploads.cleanup import (
    EMPTY_FOLDER_SECONDS,
    UploadCleaner,
    delete_upload,
    touch,
    uploads_folder,
)

HOUR = 3600


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "uploads"


def put(folder: Path, name: str, hours: float, size: int = 10) -> Path:
    """A file in a folder of its own that came so many hours ago."""
    path = folder / name / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize(
    ("name", "is_inside"), [("home", True), ("ホーム #1 100%", True), (b"caf\xe9", False)]
)
def test_uploads_lie_in_the_home_unless_its_name_is_no_utf8(tmp_path, name, is_inside):
    home = tmp_path / os.fsdecode(name)
    uploads = uploads_folder(home)
    assert uploads.is_relative_to(home) is is_inside
    assert uploads == uploads_folder(home) != uploads_folder(tmp_path / "other")
    str(uploads).encode("utf-8")


def test_oldest_files_are_deleted_where_there_is_too_much(folder):
    files = [put(folder, str(hours), hours, 100) for hours in range(5)]
    UploadCleaner(folder, max_bytes=500).tidy()
    assert all(file.exists() for file in files), "there is room"
    UploadCleaner(folder, max_bytes=300).tidy()
    assert [file.exists() for file in files] == [True, True, True, False, False]


def test_old_files_are_deleted_unless_they_were_touched(folder):
    UploadCleaner(folder).tidy()
    assert not folder.exists(), "a missing folder is not made"
    old, young, used = (put(folder, str(hours), hours) for hours in (49, 47, 50))
    touch([str(used), None, str(folder / "gone.png"), "a\0b"])
    UploadCleaner(folder).tidy()
    assert [path.exists() for path in (old, young, used)] == [False, True, True]
    assert not (folder / "gone.png").exists(), "nothing is made"


def test_half_upload_is_deleted_unless_one_is_arriving(folder):
    folder.mkdir()
    half, cleaner = folder / "tmpabc", UploadCleaner(folder)
    half.write_bytes(b"x")
    with cleaner.uploading():
        cleaner.tidy()
        assert half.exists()
    cleaner.tidy()
    assert not half.exists()


def test_old_empty_folder_is_deleted(folder):
    new, old = folder / "new", folder / "old"
    for path in (new, old):
        path.mkdir(parents=True)
    then = time.time() - EMPTY_FOLDER_SECONDS - 10
    os.utime(old, (then, then))
    UploadCleaner(folder).tidy()
    assert (new.exists(), old.exists()) == (True, False)


def test_links_are_not_followed(folder, tmp_path):
    outside = put(tmp_path / "videos", "mine", 1000)
    folder.mkdir()
    try:
        (folder / "links").symlink_to(outside.parent)
        (folder / "a").mkdir()
        (folder / "a" / "link.png").symlink_to(outside)
    except OSError:
        pytest.skip("this system makes no links")
    UploadCleaner(folder, max_bytes=0).tidy()
    assert outside.exists()


def test_hard_link_of_a_video_counts_no_bytes(folder, tmp_path):
    video = put(tmp_path / "videos", "mine", 0, 1000)
    picture, copy = put(folder, "picture", 1, 100), folder / "copy" / "mine.mp4"
    copy.parent.mkdir()
    try:
        copy.hardlink_to(video)
    except OSError:
        pytest.skip("this system makes no second names")
    UploadCleaner(folder, max_bytes=500).tidy()
    assert picture.exists()
    assert copy.exists()


def test_undeletable_file_does_not_stop_the_rest(folder, monkeypatch):
    old, other = put(folder, "old", 49), put(folder, "other", 50)
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == old:
            raise PermissionError("in use")  # as on Windows
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    UploadCleaner(folder).tidy()
    assert (old.exists(), other.exists()) == (True, False)


def test_tidying_repeats_until_the_end(folder, monkeypatch):
    monkeypatch.setattr("webui.eichi_utils.uploads.cleanup.TIDY_SECONDS", 0.01)
    end, old = threading.Event(), put(folder, "old", 49)
    UploadCleaner(folder).start(end)
    wait_until(lambda: not old.exists(), "the old file goes")
    end.set()
    wait_until(lambda: "uploads" not in {thread.name for thread in threading.enumerate()}, "the thread ends")


def test_deleted_upload_takes_only_its_own_folder(folder):
    alone, first = put(folder, "alone", 0), put(folder, "first", 0)
    second = first.with_name("second.png")
    second.write_bytes(b"x")
    for path in (alone, first, folder / "gone.png"):
        delete_upload(str(path))
    assert not alone.parent.exists()
    assert (first.exists(), second.exists()) == (False, True)

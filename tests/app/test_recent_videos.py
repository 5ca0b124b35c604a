"""The newest videos in the output folder: which are listed, how quickly, and what is kept of them."""

import io
import os
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError
from diffusers_helper.media.embedded_request import LEFT_OUT, to_comment
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import GenerationRequest
from tests.support.app import wait_until
from webui.eichi_utils import recent_videos
from webui.eichi_utils.recent_videos import MAX_SHOWN, RecentVideos

FRAME = np.full((32, 64, 3), (200, 40, 40), np.uint8)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of ours."""
    path = tmp_path_factory.mktemp("ours") / "a.mp4"
    packed = GenerationRequest("data:,", prompt="A cat.", seed=7).to_dict()
    write_mp4(path, [FRAME] * 3, crf=40, comment=to_comment(packed))
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "outputs").mkdir()
    return folder


@pytest.fixture
def recent(tmp_path: Path, folder: Path) -> RecentVideos:
    return RecentVideos(lambda: folder, tmp_path / "temp" / "recent")


def put(folder: Path, name: str, content: bytes, age: int = 0) -> Path:
    """Write a file that is so many seconds old."""
    (path := folder / name).write_bytes(content)
    os.utime(path, (10**9 - age, 10**9 - age))
    return path


def names(recent: RecentVideos) -> list[str]:
    recent.look()
    return [video.path.name for video in recent.view()]


def test_the_newest_come_first_and_no_more_than_a_dozen(recent, folder, ours):
    for age in range(MAX_SHOWN + 3):
        put(folder, f"{age}.mp4", ours, age)
    assert names(recent) == [f"{age}.mp4" for age in range(MAX_SHOWN)]


def test_a_video_is_described_and_has_a_thumbnail_of_its_first_frame(recent, folder, ours):
    path = put(folder, "猫 #1 100%&?.mp4", ours)
    recent.look()
    (video,) = recent.view()
    assert (video.path, video.prompt, video.has_settings) == (path, "A cat.", True)
    assert (video.height, video.width, video.frames) == (32, 64, 3)
    content = recent.thumbnail(video.id)
    assert content is not None
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (64, 32)
        assert np.abs(np.asarray(image).astype(int) - FRAME).mean() < 12
    assert recent.find(video.id) == video


def test_what_changes_in_the_folder_changes_here(recent, folder, ours):
    old, new = put(folder, "old.mp4", ours, 5), put(folder, "new.mp4", ours)
    assert names(recent) == ["new.mp4", "old.mp4"]
    ids = [video.id for video in recent.view()]
    new.unlink()
    assert names(recent) == ["old.mp4"]
    assert (recent.find(ids[0]), recent.thumbnail(ids[0])) == (None, None)
    old.rename(folder / "other.mp4")
    assert names(recent) == ["other.mp4"]
    put(folder, "other.mp4", b"overwritten")
    assert names(recent) == []


def test_only_whole_videos_of_ours_are_listed(recent, folder, tmp_path, ours):
    put(folder, "good.mp4", ours)
    for ending in ("_unfinished.mp4", "_section_001.mp4", ".mp4.part", ".txt"):
        put(folder, f"good{ending}", ours)
    put(folder, "cut.mp4", ours[: len(ours) - 200])
    for number, end in enumerate(range(0, len(ours), 97)):
        put(folder, f"cut_{number}.mp4", ours[:end])
    for name, comment in {"foreign": "", "theirs": '{"prompt": "x"}', "odd": "[" * 5000}.items():
        write_mp4(folder / f"{name}.mp4", [FRAME], crf=40, comment=comment)
    put(folder, "noise.mp4", np.random.default_rng(0).bytes(5000))
    put(folder, "sizes.mp4", b"\0\0\0\1moov" + b"\xff" * 8 + ours)
    (folder / "folder.mp4").mkdir()
    put(tmp_path, "elsewhere.mp4", ours)
    if os.name == "posix":
        (folder / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
        os.mkfifo(folder / "pipe.mp4")
    listed = names(recent)
    assert "good.mp4" in listed
    assert all(name == "good.mp4" or name.startswith("cut") for name in listed), listed
    assert len(listed) < 3, "one whose last bytes are missing plays"


def test_a_video_that_keeps_its_request_to_itself_is_listed(recent, folder):
    write_mp4(folder / "a.mp4", [FRAME], crf=40, comment=LEFT_OUT)
    recent.look()
    (video,) = recent.view()
    assert (video.prompt, video.has_settings) == ("", False)


def test_a_folder_that_is_away_has_no_videos_until_it_is_back(tmp_path, folder, ours):
    put(folder, "a.mp4", ours)
    recent = RecentVideos(find := Mock(return_value=folder), tmp_path / "recent")
    assert names(recent) == ["a.mp4"]
    away = folder.rename(tmp_path / "away")
    assert names(recent) == []
    find.side_effect = InputError("output_folder_empty")
    assert names(recent) == []
    find.side_effect, find.return_value = None, away
    assert names(recent) == ["a.mp4"]


def test_others_that_are_gone_are_known_until_they_are_back(tmp_path, folder, ours):
    there, elsewhere = put(folder, "a.mp4", ours), put(tmp_path, "b.mp4", ours)
    recent = RecentVideos(lambda: folder, tmp_path / "recent", lambda: [there, elsewhere])
    assert names(recent) == ["a.mp4"]
    assert recent.gone == set()
    renamed = elsewhere.rename(tmp_path / "c.mp4")
    there.unlink()
    assert (names(recent), recent.gone) == ([], {there, elsewhere})
    renamed.rename(elsewhere)
    assert (names(recent), recent.gone) == ([], {there})


def test_thumbnails_are_made_once_and_go_with_their_videos(recent, folder, tmp_path, ours, monkeypatch):
    made = Mock(wraps=recent_videos.read_first_frame)
    monkeypatch.setattr(recent_videos, "read_first_frame", made)
    for age in range(MAX_SHOWN):
        put(folder, f"{age}.mp4", ours, age)
    names(recent)
    names(RecentVideos(lambda: folder, tmp_path / "temp" / "recent"))
    assert made.call_count == MAX_SHOWN, "not again after a restart"
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    names(recent)
    assert len(list((tmp_path / "temp" / "recent").iterdir())) == 2


def test_a_thousand_files_are_opened_once_and_looked_through_quickly(recent, folder, ours, monkeypatch):
    for number in range(1000):
        put(folder, f"{number}.mp4", b"\0\0\0\x10ftypisom\0\0\0\0" if number % 2 else b"", number)
    put(folder, "ours.mp4", ours, 10_000)
    assert names(recent) == ["ours.mp4"]
    monkeypatch.setattr(recent_videos, "read_packed", Mock(side_effect=AssertionError))
    begun = time.process_time()
    assert names(recent) == ["ours.mp4"]
    assert time.process_time() - begun < 0.5


def test_the_thread_sees_what_comes_and_goes_and_rests_where_nobody_asks(recent, folder, ours, monkeypatch):
    monkeypatch.setattr(recent_videos, "LOOK_SECONDS", 0.02)
    end = threading.Event()
    recent.start(end)
    path = put(folder, "a.mp4", ours)
    wait_until(lambda: len(recent.view()) == 1, "it is listed")
    path.unlink()
    wait_until(lambda: not recent.view(), "it is gone")
    monkeypatch.setattr(recent_videos, "ASKED_SECONDS", 0)
    time.sleep(0.2)
    monkeypatch.setattr(recent, "look", looks := Mock())
    time.sleep(0.2)
    assert not looks.called
    end.set()

"""Start images that continue a video: only pictures that the app has put there do."""

import errno
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.media.images import read_image
from diffusers_helper.media.video import read_last_frame, write_mp4
from webui.eichi_utils.uploads.continued import NOTE, copy_last_frame, find_previous, save_last_frame


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "猫 #1.mp4"
    write_mp4(path, np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8), crf=20, comment="")
    return path


def test_a_last_frame_and_its_copy_continue_their_video(tmp_path, video):
    uploads = tmp_path / "uploads"
    picture = save_last_frame(video, uploads)
    copy = copy_last_frame(picture, video, uploads)
    for path in (picture, copy):
        assert np.array_equal(read_image(path), read_last_frame(video))
        assert find_previous(path, uploads) == video
    assert picture != copy
    video.unlink()
    assert find_previous(picture, uploads) is None


def test_no_other_picture_does_whatever_lies_beside_it(tmp_path, video):
    uploads = tmp_path / "uploads"
    (own := uploads / ("0" * 64)).mkdir(parents=True)
    picture = Path(save_last_frame(video, uploads))
    for path in (own / "x.png", uploads / "x.png", own / ".." / "continued" / ".." / "x.png"):
        path.write_bytes(picture.read_bytes())
        path.with_name(path.name + NOTE).write_bytes(str(video).encode())
        assert find_previous(str(path), uploads) is None
    for content in (b"", b"\0", b"x" * 2**17, str(tmp_path).encode(), b"\xff"):
        picture.with_name(picture.name + NOTE).write_bytes(content)
        assert find_previous(str(picture), uploads) is None


def test_a_full_disk_is_named(tmp_path, video, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("diffusers_helper.files.atomic.replace_file", full)
    with pytest.raises(MachineError, match="disk_full"):
        save_last_frame(video, tmp_path / "uploads")

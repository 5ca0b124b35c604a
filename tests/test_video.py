"""MP4 files that play everywhere."""

import av
import numpy as np
import pytest

from diffusers_helper.video import read_frames, write_mp4


def moving_gradient(count, height=64, width=96):
    ramp = np.linspace(40, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return [np.clip(ramp + 2 * i, 0, 255).astype(np.uint8) for i in range(count)]


def test_frames_come_back(tmp_path):
    frames = moving_gradient(20)
    assert write_mp4(tmp_path / "a.mp4", iter(frames), crf=16, comment="") == 20
    back = list(read_frames(tmp_path / "a.mp4"))
    assert len(back) == 20
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(frames, back, strict=True)])
    assert 10 * np.log10(255**2 / error) > 38


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0)])
def test_colours_come_back(tmp_path, colour):
    frame = np.full((720, 1280, 3), colour, np.uint8)
    write_mp4(tmp_path / "a.mp4", [frame] * 2, crf=16, comment="")
    back = next(read_frames(tmp_path / "a.mp4"))
    assert np.abs(back[100, 100].astype(int) - colour).max() <= 3


@pytest.mark.parametrize("crf", [1, 16, 51])
def test_every_quality_plays_everywhere(tmp_path, crf):
    path = tmp_path / "a.mp4"
    write_mp4(path, moving_gradient(5), crf=crf, comment="")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert "4:4:4" not in stream.profile
        assert stream.average_rate == 30
        assert stream.codec_context.colorspace == 1
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_failing_source_leaves_no_file(tmp_path):
    def frames():
        yield from moving_gradient(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_mp4(tmp_path / "a.mp4", frames(), crf=16, comment="")
    assert list(tmp_path.iterdir()) == []


def test_an_older_video_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.mp4"
    write_mp4(path, moving_gradient(3), crf=16, comment="old")

    def broken():
        yield moving_gradient(1)[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_mp4(path, broken(), crf=16, comment="new")
    with av.open(str(path)) as container:
        assert container.metadata["comment"] == "old"

"""MP4 files that play everywhere."""

import collections
import itertools
import os
import wave

import av
import numpy as np
import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.media.video import count_frames, read_frames, read_last_frame, write_mp4


def moving_gradient(count, height=64, width=96):
    ramp = np.linspace(40, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return [np.clip(ramp + 2 * i, 0, 255).astype(np.uint8) for i in range(count)]


def test_frames_are_read_back(tmp_path):
    frames = moving_gradient(20)
    assert write_mp4(tmp_path / "a.mp4", iter(frames), crf=16, comment="") == 20
    back = list(read_frames(tmp_path / "a.mp4"))
    assert len(back) == 20
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(frames, back, strict=True)])
    assert 10 * np.log10(255**2 / error) > 38


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 200, 30), (30, 30, 200), (255, 255, 255), (0, 0, 0)])
def test_colours_are_kept(tmp_path, colour):
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


@pytest.mark.slow
def test_a_still_scene_does_not_twitch(tmp_path):
    """A key frame shows the same scene with other errors; libx264's default is one every 250 frames."""
    dice = np.random.default_rng(0)
    scene = dice.integers(60, 190, (96, 128, 3)).astype(np.float32)
    frames = [np.clip(scene + dice.normal(0, 0.5, scene.shape), 0, 255).astype(np.uint8) for _ in range(300)]
    write_mp4(tmp_path / "a.mp4", frames, crf=16, comment="")
    shown = [frame.astype(np.float32) for frame in read_frames(tmp_path / "a.mp4")]
    steps = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(shown)]
    assert max(steps[30:]) < 2 * float(np.median(steps[30:])) + 0.5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be taken away here")
def test_the_same_frames_give_the_same_file_on_any_number_of_cores(tmp_path):
    random = np.random.default_rng(0)
    across, down = np.arange(320)[None, :, None], np.arange(192)[:, None, None]
    noise = random.normal(0, 6, (30, 192, 320, 3))
    frames = [
        (50 * np.sin((across + 3 * i) / 40) + down / 2 + 80 + noise[i]).astype(np.uint8) for i in range(30)
    ]
    cores, files = os.sched_getaffinity(0), set()
    try:
        for turn in range(10):
            os.sched_setaffinity(0, sorted(cores)[: 1 + turn % len(cores)])
            write_mp4(tmp_path / "video.mp4", frames, crf=16, comment="{}")
            files.add((tmp_path / "video.mp4").read_bytes())
    finally:
        os.sched_setaffinity(0, cores)
    assert len(files) == 1


def test_an_older_video_stays_until_the_new_one_is_complete(tmp_path):
    def broken():
        yield moving_gradient(1)[0]
        raise OSError("gone")

    for path in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        if path.name == "a.mp4":
            write_mp4(path, moving_gradient(3), crf=16, comment="old")
        with pytest.raises(OSError, match="gone"):
            write_mp4(path, broken(), crf=16, comment="new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == "old"


@pytest.mark.parametrize("count", [1, 2, 5, 40, 1000])
def test_the_last_frame_is_read_from_the_last_key_frame_on(tmp_path, monkeypatch, count):
    gradient = moving_gradient(min(count, 250))
    write_mp4(tmp_path / "a.mp4", itertools.islice(itertools.cycle(gradient), count), crf=30, comment="")
    *_, last = read_frames(tmp_path / "a.mp4")
    decoded, deque = [], collections.deque

    def counting(frames, maxlen):
        return deque((decoded.append(frame) or frame for frame in frames), maxlen)

    monkeypatch.setattr("diffusers_helper.media.video.collections.deque", counting)
    assert np.array_equal(read_last_frame(tmp_path / "a.mp4"), last)
    assert len(decoded) <= 250


def test_the_last_frame_of_a_video_without_an_index_is_found(tmp_path):
    write_mp4(tmp_path / "a.mp4", moving_gradient(40), crf=16, comment="")
    with (
        av.open(str(tmp_path / "a.mp4")) as source,
        av.open(str(tmp_path / "a.h264"), "w", format="h264") as raw,
    ):
        stream = raw.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                raw.mux(packet)
    *_, last = read_frames(tmp_path / "a.h264")
    assert np.array_equal(read_last_frame(tmp_path / "a.h264"), last)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipe has a name")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="video_broken"):
        read_last_frame(tmp_path / "a.mp4")


def test_all_but_whole_videos_are_broken(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    assert count_frames(tmp_path / "a.wav") is None
    noise = np.random.default_rng(0).integers(0, 256, (90, 64, 96, 3), dtype=np.uint8)
    write_mp4(tmp_path / "whole.mp4", noise, crf=16, comment="")
    whole, path = (tmp_path / "whole.mp4").read_bytes(), tmp_path / "a.mp4"
    other = (b"", b"no video", b"\0\0\0\x18ftypisom" + bytes(4000), (tmp_path / "a.wav").read_bytes())
    for content in (None, *other, *(whole[: int(len(whole) * part)] for part in (0.3, 0.7, 0.95))):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match="video_broken") as caught:
            read_last_frame(path)
        assert caught.value.values["reason"]

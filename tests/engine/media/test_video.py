"""MP4 files that play everywhere."""

import itertools
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.media.video import _last_frame, read_frames, read_last_frame, write_mp4


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


def test_a_still_scene_does_not_twitch(tmp_path):
    """A key frame shows the same scene with other errors; libx264's own habit is one every 250 frames."""
    dice = np.random.default_rng(0)
    scene = dice.integers(60, 190, (96, 128, 3)).astype(np.float32)
    frames = [np.clip(scene + dice.normal(0, 0.5, scene.shape), 0, 255).astype(np.uint8) for _ in range(300)]
    write_mp4(tmp_path / "a.mp4", frames, crf=16, comment="")
    shown = [frame.astype(np.float32) for frame in read_frames(tmp_path / "a.mp4")]
    steps = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(shown)]
    assert max(steps[30:]) < 2 * float(np.median(steps[30:])) + 0.5


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


@pytest.mark.parametrize("count", [1, 2, 5, 40, 300])
def test_the_last_frame_is_the_last_one(tmp_path, count):
    write_mp4(tmp_path / "a.mp4", moving_gradient(count), crf=16, comment="")
    *_, last = read_frames(tmp_path / "a.mp4")
    assert np.array_equal(read_last_frame(tmp_path / "a.mp4"), last)


class Counting:
    """A container that counts the frames that are decoded."""

    def __init__(self, container):
        self.container = container
        self.frames = 0

    def seek(self, *arguments, **options):
        self.container.seek(*arguments, **options)

    def decode(self, stream):
        for frame in self.container.decode(stream):
            self.frames += 1
            yield frame


def test_the_last_frame_is_found_without_decoding_the_rest(tmp_path):
    frames = itertools.chain.from_iterable([moving_gradient(250)] * 4)  # a key frame at least every 250
    write_mp4(tmp_path / "a.mp4", frames, crf=30, comment="")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        counting = Counting(container)
        assert _last_frame(counting, stream).pts * stream.time_base == Fraction(999, 30)
        assert counting.frames <= 250


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


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_video_whose_end_is_missing_has_no_last_frame(tmp_path, kept):
    noise = np.random.default_rng(0).integers(0, 256, (90, 64, 96, 3), dtype=np.uint8)
    write_mp4(tmp_path / "a.mp4", noise, crf=16, comment="")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError) as caught:
        read_last_frame(tmp_path / "a.mp4")
    assert caught.value.code == "video_broken"


@pytest.mark.parametrize("content", [None, b"", b"no video", b"\0\0\0\x18ftypisom" + bytes(4000)])
def test_what_is_no_video_has_no_last_frame(tmp_path, content):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_last_frame(tmp_path / "a.mp4")
    assert caught.value.code == "video_broken"
    assert caught.value.values["reason"]


def test_a_sound_has_no_last_frame(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(InputError) as caught:
        read_last_frame(tmp_path / "a.wav")
    assert caught.value.code == "video_broken"

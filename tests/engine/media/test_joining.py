"""Two videos joined into one file: the frames of both, also where they were encoded in different ways."""

import errno
import itertools
import json
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.media import video
from diffusers_helper.media.joining import continue_video, join_mp4, read_previous
from diffusers_helper.media.video import encode_mp4, read_last_frame
from diffusers_helper.request import GenerationRequest

COMPAT = Path(__file__).parents[2] / "compat"
OURS = json.dumps({"seed": 1, "section_seconds": 1, "distilled_guidance_scale": 10})


def scene(count, start=0, height=64, width=96):
    """Frames of a scene that moves, so that none shows what another one does."""
    tiles = np.random.default_rng(5).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    still = tiles.repeat(8, 0).repeat(8, 1)
    return [np.roll(still, (3 * i, 2 * i), (0, 1)) for i in range(start, start + count)]


def encode(path, frames, crf=16, continues=None, comment=OURS):
    encode_mp4(path, frames, crf=crf, comment=comment, continues=continues)
    return path


def encode_as_before(monkeypatch, path, frames, crf):
    """Encode as versions did whose parameter sets depended on the crf."""
    with monkeypatch.context() as patch:
        patch.setattr(video, "STITCHABLE", "stitchable=0")
        return encode(path, frames, crf)


def decoded(path):
    """The frames as the decoder gives them, to the bit."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def times(path):
    with av.open(str(path)) as container:
        tick = 1 / (30 * container.streams.video[0].time_base)
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [packet.pts / tick for packet in packets], [packet.dts / tick for packet in packets]


def continued(folder, previous, crf=16, count=20):
    """Join `count` frames more to a video; returns the new part and the joined file."""
    known = read_previous(previous)
    part = folder / f"{previous.stem}+.mp4"
    frames = scene(count, known.frames - 1, known.height, known.width)
    encode(part, frames, crf, known.choose_set_id())
    joined = folder / f"{previous.stem}_joined.mp4"
    assert join_mp4(previous, part, joined, comment="of both") == known.frames + count - 1
    return part, joined


def check_joined(previous, part, joined):
    """Check for all frames of the first, then the second one's without its first, at their times."""
    expected = [*decoded(previous), *decoded(part)[1:]]
    assert len(expected) == len(decoded(joined)) == read_previous(joined).frames
    for number, (frame, own) in enumerate(zip(expected, decoded(joined), strict=True)):
        assert np.array_equal(frame, own), f"frame {number}"
    shown, decoded_at = times(joined)
    assert sorted(shown) == [*range(len(expected))]
    assert decoded_at == [float(number - 2) for number in range(len(expected))]


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_joined_file_has_the_frames_of_both_to_the_bit(tmp_path, count):
    first = encode(tmp_path / "a.mp4", scene(count))
    part, joined = continued(tmp_path, first)
    check_joined(first, part, joined)
    content = joined.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(joined)) as container:
        assert container.metadata["comment"] == "of both"
        assert container.streams.video[0].codec_context.colorspace == 1


@pytest.mark.parametrize(("crf", "then"), [(10, 30), (26, 1), (16, 51)])
def test_another_quality_needs_no_other_parameter_sets(tmp_path, crf, then):
    first = encode(tmp_path / "a.mp4", scene(20), crf)
    part, joined = continued(tmp_path, first, then)
    check_joined(first, part, joined)
    assert read_previous(joined).header == read_previous(first).header


@pytest.mark.parametrize("name", ["video.mp4", "whole.mp4"])
def test_files_of_older_versions_are_continued(tmp_path, name):
    part, joined = continued(tmp_path, COMPAT / name)
    check_joined(COMPAT / name, part, joined)


def test_a_chain_grows_by_the_new_packets_alone(tmp_path, monkeypatch):
    last = encode_as_before(monkeypatch, tmp_path / "0.mp4", scene(20), 10)
    for crf in (30, 16, 40, 16):
        part, joined = continued(tmp_path, last, crf)
        check_joined(last, part, joined)
        assert joined.stat().st_size < last.stat().st_size + part.stat().st_size
        last = joined
    assert read_previous(last).header.ids == {0, 1}, "those of the old one, and ours"


def test_any_frame_is_found_from_its_own_key_frame(tmp_path, monkeypatch):
    """Each part is decoded with its own parameter sets, wherever a player begins."""
    first = encode_as_before(monkeypatch, tmp_path / "a.mp4", scene(40), 10)
    _, joined = continued(tmp_path, first, 40)
    whole = decoded(joined)
    with av.open(str(joined)) as container:
        stream = container.streams.video[0]
        for number in (50, 3, 58, 40, 39, 0):
            container.seek(round(number / 30 / stream.time_base), stream=stream)
            frames = (
                frame for frame in container.decode(stream) if frame.pts * stream.time_base * 30 == number
            )
            assert np.array_equal(next(frames).to_ndarray(), whole[number])
    assert np.array_equal(read_last_frame(joined), read_last_frame(tmp_path / "a+.mp4"))


def test_videos_that_do_not_go_together_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    first = encode(tmp_path / "a.mp4", scene(20))
    joined, part = tmp_path / "joined.mp4", tmp_path / "part.mp4"

    def refusal(previous, code):
        with pytest.raises(InputError, match=code):
            join_mp4(previous, part, joined, comment="")
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("joined")]

    encode(part, scene(20, 19, 128, 128), continues=0)
    refusal(first, "previous_video_foreign")
    other = encode_as_before(monkeypatch, tmp_path / "other.mp4", scene(20), 10)
    encode(part, scene(20, 19), continues=0)
    refusal(other, "previous_video_foreign")
    encode(part, scene(20, 19, 64, 64), continues=read_previous(other).choose_set_id())
    refusal(other, "previous_video_foreign")
    refusal(tmp_path / "gone.mp4", "video_broken")
    for missing in (1, 30, 500, 3000):
        (tmp_path / "cut.mp4").write_bytes(first.read_bytes()[:-missing])
        refusal(tmp_path / "cut.mp4", "previous_video_foreign")


def test_videos_in_another_format_are_foreign(tmp_path):
    def write(name, rate=30, pixels="yuv420p", codec="libx264"):
        with av.open(str(tmp_path / name), "w", format="mp4") as container:
            container.metadata["comment"] = OURS
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
            for frame in scene(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        return tmp_path / name

    others = write("a.mp4", rate=25), write("b.mp4", pixels="yuv444p"), write("c.mp4", codec="mpeg4")
    for path in others:
        with pytest.raises(InputError, match="previous_video_foreign"):
            read_previous(path)


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    first = encode(tmp_path / "a.mp4", scene(20))
    part = encode(tmp_path / "part.mp4", scene(20, 19), continues=0)
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("diffusers_helper.files.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        join_mp4(first, part, tmp_path / "joined.mp4", comment="")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "part.mp4"]


def test_a_request_takes_from_the_video_what_it_leaves_out(tmp_path):
    first = encode(tmp_path / "a.mp4", scene(20))
    named = {"previous_video": str(first), "start_image": "b.png"}
    whole = continue_video(GenerationRequest.from_dict({"previous_video": str(first)}))
    assert whole.start_image.startswith("data:image/webp")
    assert (whole.width, whole.height) == (96, 64)
    assert continue_video(GenerationRequest.from_dict(named)).start_image == "b.png"
    for code, values in {
        "previous_video_size": {"width": 64, "height": 64},
        "video_broken": {"previous_video": str(tmp_path / "gone.mp4")},
        "previous_video_foreign": {"previous_video": str(encode(tmp_path / "b.mp4", scene(2), comment=""))},
    }.items():
        with pytest.raises(InputError, match=code):
            continue_video(GenerationRequest.from_dict(named | values))


def test_there_are_ids_for_many_qualities_of_old_files(tmp_path):
    first = encode(tmp_path / "0.mp4", scene(2), continues=0)
    header = read_previous(first).header
    assert header.to_bytes() == header.parse(header.to_bytes()).to_bytes()
    for number in range(1, 31):
        other = read_previous(encode(tmp_path / "n.mp4", scene(2), continues=number)).header
        header = header.joined(other)
        assert header.ids == {*range(number + 1)}
    with pytest.raises(ValueError, match="too many"):
        header.joined(read_previous(encode(tmp_path / "n.mp4", scene(2), continues=31)).header)
    whole = header.to_bytes()
    for size in itertools.chain(range(6), range(6, len(whole) - len(header.rest), 7)):
        with pytest.raises(ValueError, match="header"):
            header.parse(whole[:size])

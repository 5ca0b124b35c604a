"""The partial video plays, shows what the job has, and costs no more the longer the video is."""

import errno
from fractions import Fraction
from unittest.mock import Mock

import av
import numpy as np
import pytest
import torch

from diffusers_helper.events import Finished, SectionDone
from diffusers_helper.job import partial_video
from diffusers_helper.job.fingerprint import JobFingerprint
from diffusers_helper.job.folder import JobFolder
from diffusers_helper.job.partial_video import PartialVideo
from diffusers_helper.media.video import read_frames
from tests.support.tiny import run, small_request, work_of

HEIGHT, WIDTH = 48, 64
ONE_SECOND = (33, [33, 41, 41, 41, 73])
HALF_SECOND = (17, [17, 37, 37, 37, 29])
"""Overlap, and the frames that each section decodes to, the last one's included."""


def moving_section(number, count):
    """Frames that differ in brightness, with a bar whose position differs by section."""
    frames = torch.linspace(30, 220, count)[:, None, None, None].repeat(1, HEIGHT, WIDTH, 3)
    frames[:, :, 8 * number : 8 * number + 8] = 255 - frames[:, :, 8 * number : 8 * number + 8]
    return frames


@pytest.fixture
def folder(tmp_path):
    with JobFolder(tmp_path / "a.job", HEIGHT, WIDTH, 33) as folder:
        yield folder


def add_sections(folder, counts):
    for number, count in enumerate(counts):
        list(folder.add_frames(moving_section(number, count), count, weights_of(folder, count)))
        yield number


def weights_of(folder, count):
    """The blend of a section, some of which share fewer frames with the next one."""
    shared = {0: 0, 41: 5, 29: 5}.get(count if folder.num_sections else 0, folder.overlap)
    return torch.linspace(1, 0, shared).tolist()


def assert_same_frames(video, frames):
    found = [frame.astype(int) for frame in read_frames(video)]
    wanted = list(frames)
    assert len(found) == len(wanted)
    assert max(np.abs(a - b).mean() for a, b in zip(found, wanted, strict=True)) < 3


@pytest.mark.parametrize(("overlap", "counts"), [ONE_SECOND, HALF_SECOND, (33, [37]), (17, [21])])
def test_after_each_section_the_file_shows_all_frames(tmp_path, overlap, counts):
    with JobFolder(tmp_path / "a.job", HEIGHT, WIDTH, overlap) as folder:
        partial = PartialVideo(folder)
        for _ in add_sections(folder, counts):
            assert_same_frames(partial.write(), folder.frames())


def test_it_plays_from_its_first_frame_in_even_steps(folder):
    partial = PartialVideo(folder)
    for _ in add_sections(folder, ONE_SECOND[1]):
        video = partial.write()
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        assert (stream.start_time, stream.frames) == (0, folder.num_frames)
        assert stream.duration * stream.time_base == Fraction(folder.num_frames, 30)
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [packet.pts * packet.time_base * 30 for packet in packets]
        assert times == list(range(folder.num_frames))
        assert [packet.dts for packet in packets] == [packet.pts for packet in packets]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert keys == [0, 33, 73, 109, 145]  # each piece can be sought
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_section_costs_the_same_however_long_the_video_is(folder, monkeypatch):
    encoded = []
    original = partial_video.encode_frames

    def count(*arguments):
        encoded.append(original(*arguments))
        return encoded[-1]

    monkeypatch.setattr(partial_video, "encode_frames", count)
    partial, costs = PartialVideo(folder), []
    for _ in add_sections(folder, [33] + [41] * 6):
        encoded.clear()
        partial.write()
        costs.append(sum(encoded))
    assert costs == [33] + [69] * 6


@pytest.mark.parametrize("refused", [False, True])
def test_only_the_newest_two_stay_unless_somebody_watches(folder, monkeypatch, refused):
    partial, written = PartialVideo(folder), []
    for number in add_sections(folder, ONE_SECOND[1]):
        if refused and number == 2:
            watched = PermissionError(errno.EACCES, "somebody watches it")
            monkeypatch.setattr(partial_video.Path, "unlink", Mock(side_effect=watched))
        written.append(partial.write())
        assert refused or sorted(folder.path.glob("so_far_*")) == sorted(written[-2:])
    monkeypatch.undo()
    assert len(set(written)) == 5
    assert len(list(folder.path.glob("so_far_*.mp4"))) == (5 if refused else 2)


def fail_with(number):
    return Mock(side_effect=OSError(number, "no"))


def test_a_failed_write_is_made_up_for_by_the_next_one(folder, monkeypatch):
    partial = PartialVideo(folder)
    original = partial_video.encode_frames
    for number in add_sections(folder, ONE_SECOND[1]):
        failing = fail_with(errno.EACCES) if number in (1, 2) else original
        monkeypatch.setattr(partial_video, "encode_frames", failing)
        video = partial.write()
        assert (video is None) == (number in (1, 2))
    assert_same_frames(video, folder.frames())
    monkeypatch.setattr(partial_video, "encode_frames", fail_with(errno.ENOSPC))  # which does end the job
    with pytest.raises(OSError, match="no"):
        partial.write()


# -- in a job ---------------------------------------------------------------------------------------------


def test_a_job_reports_each_and_leaves_none(tmp_path):
    counts = []
    for event in run(small_request(seconds=1), tmp_path / "out", partial_videos=True):
        if isinstance(event, SectionDone):
            assert event.video is None or event.video.parent == work_of(tmp_path / "out")
            counts.append((event.video and len(list(read_frames(event.video))), event.pixel_frames))
    assert isinstance(event, Finished)
    assert counts == [(17, 17), (None, event.frames)]  # the whole one follows
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "a.png"]


def test_a_resumed_job_shows_its_sections_and_deletes_pieces(tmp_path):
    path = tmp_path / "a.job"
    fingerprint = JobFingerprint("a", "m", 1)
    with JobFolder(path, HEIGHT, WIDTH, 33) as folder:
        folder.resume(fingerprint, [False, False])
        folder.add_latents(torch.zeros(1, 16, 9, HEIGHT // 8, WIDTH // 8), False, [1])
        next(add_sections(folder, [33]))
        killed = PartialVideo(folder).write()
        for name in ("so_far_000.mp4", "so_far_002.mp4.part", "closed_005.mp4", "closed_001.mp4.part"):
            (path / name).write_bytes(b"x")
    with JobFolder(path, HEIGHT, WIDTH, 33) as folder:
        folder.resume(fingerprint, [False, False])
        assert sorted(file.name for file in path.glob("*.mp4*")) == ["so_far_000.mp4", "so_far_001.mp4"]
        partial = PartialVideo(folder)
        assert partial.write() == killed
        assert len(list(read_frames(killed))) == 33
        folder.add_latents(torch.zeros(1, 16, 9, HEIGHT // 8, WIDTH // 8), False, [1])
        next(add_sections(folder, [41]))
        newest = partial.write()
        assert len(list(read_frames(newest))) == folder.num_frames == 69
        assert sorted(path.glob("so_far_*")) == [killed, newest]

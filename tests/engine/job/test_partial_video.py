"""The video so far: it plays, it is what the job has, and it costs no more the longer the video is."""

import errno
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Finished, SectionDone
from diffusers_helper.job import partial_video as progress_video
from diffusers_helper.job.fingerprint import JobFingerprint
from diffusers_helper.job.folder import JobFolder
from diffusers_helper.job.partial_video import PartialVideo
from diffusers_helper.media.video import read_frames
from tests.support.tiny import make_request, run, work_of

HEIGHT, WIDTH = 48, 64
SMALL = {"seconds": 1, "section_seconds": 0.5, "width": WIDTH, "height": HEIGHT}
ONE_SECOND = (33, [33, 41, 41, 41, 73])
HALF_SECOND = (17, [17, 37, 37, 37, 29])
"""Overlap, and the frames that each section decodes to, the last one's included."""


def moving_section(number, count):
    """Frames that tell by their brightness which they are, and by a bar in which section."""
    frames = torch.linspace(30, 220, count)[:, None, None, None].repeat(1, HEIGHT, WIDTH, 3)
    frames[:, :, 8 * number : 8 * number + 8] = 255 - frames[:, :, 8 * number : 8 * number + 8]
    return frames


@pytest.fixture
def folder(tmp_path):
    with JobFolder(tmp_path / "a.job", HEIGHT, WIDTH, 33) as folder:
        yield folder


def add_sections(folder, counts):
    for number, count in enumerate(counts):
        folder.add_frames(moving_section(number, count), count, weights_of(folder, count))
        yield number


def weights_of(folder, count):
    """A section that reaches over less than all of the next one shares fewer frames with it."""
    shared = {0: 0, 41: 5, 29: 5}.get(count if folder.num_sections else 0, folder.overlap)
    return torch.linspace(1, 0, shared).tolist()


def assert_same_frames(video, frames):
    found = [frame.astype(int) for frame in read_frames(video)]
    wanted = list(frames)
    assert len(found) == len(wanted)
    assert max(np.abs(a - b).mean() for a, b in zip(found, wanted, strict=True)) < 3


@pytest.mark.parametrize(("overlap", "counts"), [ONE_SECOND, HALF_SECOND, (33, [37]), (17, [21])])
def test_after_each_section_the_file_shows_what_the_job_has(tmp_path, overlap, counts):
    with JobFolder(tmp_path / "a.job", HEIGHT, WIDTH, overlap) as folder:
        progress = PartialVideo(folder)
        for _ in add_sections(folder, counts):
            assert_same_frames(progress.write(), folder.frames())


def test_it_plays_from_its_first_frame_in_even_steps_and_begins_before_it_is_read_whole(folder):
    progress = PartialVideo(folder)
    for _ in add_sections(folder, ONE_SECOND[1]):
        video = progress.write()
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        assert stream.start_time == 0
        assert stream.frames == folder.num_frames
        assert stream.duration * stream.time_base == Fraction(folder.num_frames, 30)
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [packet.pts * packet.time_base for packet in packets]
        assert times == [Fraction(number, 30) for number in range(folder.num_frames)]
        assert [packet.dts for packet in packets] == [packet.pts for packet in packets]
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_every_piece_can_be_sought(folder):
    progress = PartialVideo(folder)
    for _ in add_sections(folder, ONE_SECOND[1]):
        video = progress.write()
    with av.open(str(video)) as container:
        keys = [packet for packet in container.demux(video=0) if packet.is_keyframe]
        assert [key.pts * key.time_base * 30 for key in keys] == [0, 33, 73, 109, 145]


def test_a_section_costs_the_same_however_long_the_video_is(folder, monkeypatch):
    encoded = []
    original = progress_video.encode_frames

    def count(*arguments):
        encoded.append(original(*arguments))
        return encoded[-1]

    monkeypatch.setattr(progress_video, "encode_frames", count)
    progress, costs = PartialVideo(folder), []
    for _ in add_sections(folder, [33] + [41] * 6):
        encoded.clear()
        progress.write()
        costs.append(sum(encoded))
    assert costs == [33] + [69] * 6


def test_the_newest_two_stay_under_names_of_their_own(folder):
    progress, written = PartialVideo(folder), []
    for _ in add_sections(folder, ONE_SECOND[1]):
        written.append(progress.write())
        there = sorted(folder.path.glob("so_far_*"))
        assert there == sorted(written[-2:])
    assert len(set(written)) == 5


def test_a_file_that_cannot_be_deleted_stays_and_nothing_fails(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "somebody watches it")

    progress, written = PartialVideo(folder), []
    for number in add_sections(folder, ONE_SECOND[1]):
        if number == 2:
            monkeypatch.setattr(progress_video.Path, "unlink", refuse)
        written.append(progress.write())
    monkeypatch.undo()
    assert all(path is not None for path in written)
    assert len(list(folder.path.glob("so_far_*.mp4"))) == 5


def test_what_could_not_be_written_is_in_the_next_one(folder, monkeypatch):
    progress = PartialVideo(folder)
    original = progress_video.encode_frames

    def fail(*_):
        raise PermissionError(errno.EACCES, "locked")

    for number in add_sections(folder, ONE_SECOND[1]):
        monkeypatch.setattr(progress_video, "encode_frames", fail if number in (1, 2) else original)
        video = progress.write()
        assert (video is None) == (number in (1, 2))
    assert_same_frames(video, folder.frames())


def test_a_full_disk_is_the_jobs_own_trouble(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress_video, "encode_frames", fail)
    next(add_sections(folder, [33]))
    with pytest.raises(OSError, match="No space left"):
        PartialVideo(folder).write()


# -- in a job ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section_seconds", [1, 0.5])
def test_a_job_tells_of_each_and_leaves_none(tmp_path, section_seconds):
    values = SMALL | {"seconds": 2 * section_seconds, "section_seconds": section_seconds}
    counts = []
    for event in run(make_request(**values), tmp_path / "out", partial_videos=True):
        if isinstance(event, SectionDone):
            assert event.video.parent == work_of(tmp_path / "out")
            counts.append((len(list(read_frames(event.video))), event.pixel_frames))
    assert isinstance(event, Finished)
    assert len(counts) == 2
    assert all(found == told for found, told in counts)
    assert counts[-1][0] == event.frames
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "a.png"]


def test_without_the_option_none_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(PartialVideo, "write", lambda _: pytest.fail("made"))
    done = [event for event in run(make_request(**SMALL), tmp_path / "out") if isinstance(event, SectionDone)]
    assert [event.video for event in done] == [None, None]


def test_a_job_goes_on_without_its_progress_videos(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "locked")

    monkeypatch.setattr(progress_video, "encode_frames", fail)
    *_, done, _saving, finished = run(make_request(**SMALL), tmp_path / "out", partial_videos=True)
    assert (done.video, finished.frames) == (None, 41)


def test_a_disk_that_fills_up_with_it_ends_the_job_with_a_sentence_of_its_own(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress_video, "encode_frames", fail)
    with pytest.raises(MachineError) as caught:
        list(run(make_request(**SMALL), tmp_path / "out", partial_videos=True))
    assert caught.value.code == "disk_full"
    assert (tmp_path / "out" / "a_unfinished.mp4").exists()


def test_a_run_that_goes_on_shows_what_is_there_and_clears_what_is_not_needed(tmp_path):
    path = tmp_path / "a.job"
    mark = JobFingerprint("a", "m", 1)
    with JobFolder(path, HEIGHT, WIDTH, 33) as folder:
        folder.resume(mark, [False, False])
        folder.add_latents(torch.zeros(1, 16, 9, HEIGHT // 8, WIDTH // 8), False, [1])
        next(add_sections(folder, [33]))
        killed = PartialVideo(folder).write()
        for name in ("so_far_000.mp4", "so_far_002.mp4.part", "closed_005.mp4", "closed_001.mp4.part"):
            (path / name).write_bytes(b"x")
    with JobFolder(path, HEIGHT, WIDTH, 33) as folder:
        folder.resume(mark, [False, False])
        assert sorted(file.name for file in path.glob("*.mp4*")) == ["so_far_000.mp4", "so_far_001.mp4"]
        progress = PartialVideo(folder)
        assert progress.write() == killed
        assert len(list(read_frames(killed))) == 33
        folder.add_latents(torch.zeros(1, 16, 9, HEIGHT // 8, WIDTH // 8), False, [1])
        next(add_sections(folder, [41]))
        newest = progress.write()
        assert len(list(read_frames(newest))) == folder.num_frames == 69
        assert sorted(path.glob("so_far_*")) == [killed, newest]

"""A job that continues a video: the new part, and both as one file, whatever happens in between."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Finished, Notice, Resumed, StageStarted
from diffusers_helper.job import output
from diffusers_helper.media.embedded_request import load_request, read_packed
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import count_frames, read_frames, read_last_frame, write_mp4
from tests.support.tiny import run, small_request, work_of

FRAMES = 21
"""The frames of a new part."""


@pytest.fixture
def out(tmp_path):
    """An output folder with a video of ours in it, of 5 frames."""
    folder = tmp_path / "out"
    tiles = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    comment = json.dumps(small_request().to_dict() | {"start_image": to_data_uri(tiles)})
    folder.mkdir()
    write_mp4(folder / "first.mp4", [np.roll(tiles, 2 * i, 0) for i in range(5)], crf=30, comment=comment)
    return folder


def request_after(first: Path, **values):
    start = to_data_uri(read_last_frame(first))
    return small_request(previous_video=str(first), start_image=start, **values)


def make(request, out, **options):
    *events, end = run(request, out, **options)
    assert isinstance(end, Finished)
    return end, [event for event in events if isinstance(event, Notice)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check_joined(first, end):
    """Check for the frames of the first video, then those of the new part."""
    frames = [*read_frames(first), *list(read_frames(end.video))[1:]]
    assert end.joined_frames == len(frames) == count_frames(end.joined)
    for frame, own in zip(frames, read_frames(end.joined), strict=True):
        assert np.array_equal(frame, own)


@pytest.mark.parametrize("values", [{}, {"crf": 40}, {"loop": True}, {"embed_request": False}])
def test_both_files_are_there_and_each_makes_the_new_part_again(out, values):
    end, notices = make(request_after(out / "first.mp4", **values), out)
    assert notices == []
    assert names(out) == ["a.mp4", "a.png", "a_joined.mp4", "first.mp4"]
    assert (end.video, end.joined, end.frames) == (out / "a.mp4", out / "a_joined.mp4", FRAMES)
    check_joined(out / "first.mp4", end)
    for path in (end.video, end.joined):
        if "embed_request" in values:
            assert read_packed(path) == {}
            continue
        again = load_request(path)
        assert (again.previous_video, again.seed) == (str(out / "first.mp4"), 1)
        assert read_packed(path)["previous_video"] == "first.mp4", "no file names a folder of this computer"


def test_a_joined_video_is_continued_again(out):
    make(request_after(out / "first.mp4"), out)
    end, notices = make(request_after(out / "a_joined.mp4"), out, name="b")
    assert notices == []
    check_joined(out / "a_joined.mp4", end)
    assert end.joined_frames == 5 + 2 * (FRAMES - 1)
    last, before = (len(json.dumps(read_packed(out / name))) for name in ("b_joined.mp4", "a_joined.mp4"))
    assert last < 1.5 * before, "what is embedded does not grow with the chain"


def test_a_video_elsewhere_is_joined_but_not_named(out, tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    first = (out / "first.mp4").rename(elsewhere / "first.mp4")
    end, _ = make(request_after(first), out)
    check_joined(first, end)
    assert read_packed(end.joined)["previous_video"] is None


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_video_that_has_gone_costs_the_joined_file_alone(out, moment):
    first, seen = out / "first.mp4", []
    request = request_after(first)
    if moment == "before":
        first.unlink()
    for event in run(request, out):
        seen.append(event)
        if event == StageStarted("saving"):
            first.unlink(missing_ok=True)
    assert seen[-2:] == [Notice("previous_video_gone", {"path": str(first)}), seen[-1]]
    assert (seen[-1].joined, count_frames(out / "a.mp4")) == (None, FRAMES)
    assert names(out) == ["a.mp4", "a.png"]
    assert not work_of(out).exists()


def test_a_video_whose_place_cannot_be_looked_at_costs_the_joined_file_alone(out):
    first = out / "first.mp4"
    request, away = request_after(first), out / f"{'a' * 300}.mp4"
    end, (notice,) = make(replace(request, previous_video=str(away)), out)
    assert (notice.code, end.joined, count_frames(end.video)) == ("previous_video_gone", None, FRAMES)
    assert names(out) == ["a.mp4", "a.png", "first.mp4"]


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may not write")]
)
def test_the_new_part_is_there_though_both_together_cannot_be_written(out, monkeypatch, number, reason):
    whole = output.join_mp4

    def write_nothing(previous, part, target, **how):
        assert count_frames(part) == FRAMES
        target.with_name(target.name + ".part").write_bytes(b"half")
        with monkeypatch.context() as patch:
            patch.setattr("diffusers_helper.files.atomic.os.fsync", Mock(side_effect=OSError(number, reason)))
            return whole(previous, part, target, **how)

    monkeypatch.setattr(output, "join_mp4", write_nothing)
    end, notices = make(request_after(first := out / "first.mp4"), out)
    assert notices == [Notice("not_joined", {"path": str(first), "reason": reason})]
    assert (end.joined, count_frames(end.video)) == (None, FRAMES)
    assert names(out) == ["a.mp4", "a.png", "first.mp4"]


def test_a_damaged_or_foreign_video_costs_the_joined_file_alone(out):
    first = out / "first.mp4"
    request, content = request_after(first), first.read_bytes()
    for name, damaged in (("cut", content[:-200]), ("other", b"no video"), ("empty", b"")):
        first.write_bytes(damaged)
        end, (notice,) = make(replace(request, prompt=name), out, name=name)
        assert (notice.code, end.joined, count_frames(end.video)) == ("not_joined", None, FRAMES)
        assert notice.values["reason"] not in ("", "InputError")
    assert not list(out.glob("*_joined*"))


@pytest.mark.parametrize("moment", ["while both are joined", "between the files"])
def test_a_run_that_ends_while_it_saves_is_resumed_to_the_same_files(out, monkeypatch, moment):
    first = out / "first.mp4"
    expected, _ = make(request_after(first), out, name="whole")
    joined, whole = expected.joined.read_bytes(), expected.video.read_bytes()
    kept = output.join_mp4

    def killed(*paths, **how):
        if moment == "between the files":
            kept(*paths, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "join_mp4", killed)
    with pytest.raises(KeyboardInterrupt):
        list(run(request_after(first), out))
    assert not (out / "a.mp4").exists(), "its name means that nothing is missing"
    monkeypatch.setattr(output, "join_mp4", kept)
    events = list(run(request_after(first), out))
    assert any(isinstance(event, Resumed) for event in events)
    assert (out / "a_joined.mp4").read_bytes() == joined
    assert (out / "a.mp4").read_bytes() == whole
    assert not list(out.glob("*.part"))


def test_a_new_part_that_cannot_be_written_leaves_nothing_joined(out, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(output, "encode_mp4", full)
    with pytest.raises(MachineError, match="disk_full"):
        list(run(request_after(out / "first.mp4"), out))
    assert not (out / "a_joined.mp4").exists()
    monkeypatch.undo()
    end, _ = make(request_after(out / "first.mp4"), out)
    check_joined(out / "first.mp4", end)

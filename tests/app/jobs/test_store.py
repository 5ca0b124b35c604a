"""Jobs that are not finished: resumed, discarded, and found by the next start, whatever has happened."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.media.video import write_mp4
from tests.support import app
from tests.support.queue import SOON, Runner, StoppedOnly, is_stepping, wait_idle, wait_until
from webui.eichi_utils.jobs import queue as jobs
from webui.eichi_utils.jobs import trash
from webui.eichi_utils.jobs.job import Job
from webui.eichi_utils.jobs.queue import JobQueue


@pytest.fixture
def begun(start, long, tmp_path) -> Job:
    """A job with two of four sections that an app has left which was killed."""
    hung = start(StoppedOnly(2))
    hung.add(long, tmp_path)
    view = wait_until(hung, is_stepping)
    assert view.running is not None
    return view.running


@pytest.fixture
def kept(request_, tmp_path, temp) -> Path:
    """The file of a job that waits until the next start."""
    queue = JobQueue(Runner(), temp, paused=True)
    path = temp / f"job_{queue.add(request_, tmp_path)}" / "job.json"
    assert queue.close(SOON)
    return path


@pytest.mark.parametrize("sections", [0, 2])
def test_a_stopped_job_can_be_finished_if_it_has_sections(start, long, tmp_path, temp, sections):
    queue = start(StoppedOnly(sections))
    job_id = queue.add(long, tmp_path)
    wait_until(queue, is_stepping)
    queue.stop(job_id)
    (job,) = wait_idle(queue)
    assert (job.state, job.can_finish, job.progress.sections_done) == ("stopped", sections > 0, sections)
    assert bool(list(temp.rglob("*.png"))) is (sections > 0)


@pytest.mark.parametrize("short", [False, True])
def test_an_unfinished_job_is_resumed_before_all_that_wait(start, long, tmp_path, short):
    queue = start(runner := StoppedOnly(2))
    first, *others = (queue.add(long, tmp_path) for _ in range(3))
    wait_until(queue, is_stepping)
    queue.stop(first)
    wait_until(queue, lambda view: view.unfinished and is_stepping(view))
    (job,) = queue.view().unfinished
    assert job.can_finish_short
    assert queue.finish(first, short)
    assert not queue.finish(first), "only once"
    view = queue.view()
    assert (view.unfinished, [job.id for job in view.waiting]) == ((), [first, others[1]])
    queue.stop(others[0])
    wait_until(queue, lambda view: view.running and view.running.id == first)
    before, again = runner.began[0], runner.began[-1]
    assert again == replace(before, request=replace(before.request, close_after=2 if short else None))


def test_removing_a_resumed_job_from_the_queue_loses_nothing(start, long, tmp_path):
    queue = start(StoppedOnly(2))
    first, second = (queue.add(long, tmp_path) for _ in range(2))
    wait_until(queue, is_stepping)
    queue.stop(first)
    wait_until(queue, lambda view: view.unfinished and is_stepping(view))
    assert queue.finish(first)
    assert queue.remove(first)
    (job,) = queue.view().unfinished
    assert (job.id, job.state, job.can_finish, job.progress.sections_done) == (first, "interrupted", True, 2)
    assert (job.spec.work / "section_001.frames").exists()
    queue.stop(second)
    wait_until(queue, lambda view: not view.running)
    assert [stored.state for stored in queue._store.load()[0]] == ["interrupted"] * 2


def test_a_discarded_job_leaves_nothing(start, long, tmp_path, temp, monkeypatch):
    monkeypatch.setattr(trash, "SECONDS", 0.1)
    queue = start(StoppedOnly(1))
    job_id = queue.add(long, tmp_path)
    wait_until(queue, is_stepping)
    assert not queue.discard(job_id), "not while it runs"
    queue.stop(job_id)
    (job,) = wait_idle(queue)
    endings = [
        ".png",
        "_unfinished.mp4",
        ".mp4.part",
        "_section_001.png",
        "_section_012.mp4.part",
        ".png.part",
    ]
    left = [tmp_path / f"{job.name}{ending}" for ending in endings]
    others = [tmp_path / f"{job.name}{ending}" for ending in ("2.mp4", "2.png", "_section_1.txt", ".txt")]
    for path in left + others:
        path.touch()
    assert queue.discard(job_id)
    assert not queue.discard(job_id)
    assert queue.find(job_id) is None
    app.wait_until(lambda: not any(temp.iterdir()), "the job is deleted", SOON)
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in others)
    assert not queue.restore([job_id])


def test_a_discarded_job_can_be_brought_back_until_the_next_start(start, long, tmp_path, temp):
    queue = start(StoppedOnly(2))
    job_id = queue.add(long, tmp_path)
    wait_until(queue, is_stepping)
    queue.stop(job_id)
    (job,) = wait_idle(queue)
    (left := tmp_path / f"{job.name}_unfinished.mp4").touch()
    assert queue.discard(job_id)
    assert queue.restore([job_id])
    assert not queue.restore([job_id])
    assert (queue.view().unfinished, left.exists()) == ((job,), True)
    assert (job.spec.work / "section_001.frames").exists()
    assert queue.finish(job_id)
    wait_until(queue, is_stepping)
    queue.stop(job_id)
    wait_idle(queue)
    assert queue.discard(job_id)
    assert start(Runner()).view().jobs == (), "the next start brings nothing back"
    assert (list(temp.iterdir()), left.exists()) == ([], False)


def test_a_discarded_jobs_video_that_somebody_named_as_a_finished_one_keeps_its_picture(begun):
    video, picture, part = (begun.spec.folder / f"{begun.name}{end}" for end in (".mp4", ".png", ".mp4.part"))
    for path in (video, picture, part):
        path.touch()
    begun.spec.delete_left_files()
    assert [path.exists() for path in (video, picture, part)] == [True, True, False]


# -- the next start ----------------------------------------------------------------------------------


def test_closing_stops_the_job_and_the_next_start_finds_all(start, request_, tmp_path):
    queue = start(StoppedOnly())
    first, second, third = (queue.add(request_, tmp_path) for _ in range(3))
    wait_until(queue, is_stepping)
    assert queue.close(SOON)
    with pytest.raises(MachineError, match="closing"):
        queue.add(request_, tmp_path)
    again = start(runner := Runner(held=True))
    (job,) = again.view().unfinished
    assert (job.id, job.state, job.can_finish) == (first, "interrupted", True)
    assert job.request.prompt == request_.prompt
    wait_until(again, lambda view: view.running)
    assert [runner.began[0].id, *(job.id for job in again.view().waiting)] == [second, third]


def test_closing_waits_no_longer_than_its_timeout(start, request_, tmp_path):
    queue = start(Runner(held=True))
    queue.add(request_, tmp_path)
    wait_until(queue, lambda view: view.running)
    assert not queue.close(0.01)


def test_the_order_of_the_queue_is_restored(start, request_, tmp_path, monkeypatch):
    first = start(Runner(held=True))
    names = iter(f"name {number}" for number in (5, 3, 9, 1))
    monkeypatch.setattr(jobs, "new_name", lambda *_: next(names))
    running, a, b, c = (first.add(request_, tmp_path) for _ in range(4))
    wait_until(first, lambda view: view.running)
    first.move_up(c)
    again = start(runner := Runner(held=True))
    wait_until(again, lambda view: view.running)
    assert [job.id for job in again.view().unfinished] == [running]
    assert [runner.began[0].id, *(job.id for job in again.view().waiting)] == [a, c, b]


def test_after_a_crash_a_job_has_its_thumbnail_and_sections(start, begun):
    work = begun.spec.work
    for number in (1, 2):
        (work / f"so_far_{number:03d}.mp4").touch()
    again = start(runner := StoppedOnly())
    (job,) = again.view().unfinished
    assert (job.state, job.video, job.frames) == ("interrupted", work / "so_far_002.mp4", 69)
    assert (job.progress.sections_done, job.progress.sections) == (2, 4)
    assert job.thumbnail == begun.thumbnail != b""
    assert again.finish(job.id)
    wait_until(again, lambda view: view.running)
    assert runner.began == [begun.spec]


def test_a_damaged_job_is_set_aside_with_a_notice(start, kept, request_, tmp_path):
    waits = JobQueue(Runner(), kept.parents[1], paused=True)
    whole = waits.add(request_, tmp_path)
    assert waits.close(SOON)
    kept.write_text(kept.read_text()[:-20])
    again = start(runner := Runner())
    wait_until(again, lambda view: view.ended)
    assert [spec.id for spec in runner.began] == [whole]
    aside = kept.parent.with_name(kept.parent.name.replace("job_", "unreadable_"))
    (notice,) = again.notices
    assert (notice.code, notice.values) == ("job_unreadable", {"path": str(aside)})
    assert (aside / "0.png").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("place", "Infinity"), ("place", "1e400"), ("place", "[" * 10**5), ("place", "null")],
        *[("seed", "null"), ("keyframes", '"SECRETWORDS"'), ("name", '"../x"'), ("close_after", "[]")],
        ("prompt", '"' + "x" * 10**6 + '"'),  # too large
    ],
)
def test_no_damage_keeps_the_queue_from_starting(start, kept, caplog, monkeypatch, key, value):
    monkeypatch.setattr("webui.eichi_utils.jobs.store.MAX_JOB_BYTES", 10**6)
    values = json.loads(kept.read_text("utf-8"))
    owner = values if key in values else values["request"]
    owner[key] = "DAMAGE"
    kept.write_text(json.dumps(values).replace('"DAMAGE"', value), "utf-8")
    assert [notice.code for notice in start(Runner()).notices] == ["job_unreadable"]
    assert list(kept.parents[1].glob("unreadable_*"))
    assert "cannot be read: " in caplog.text
    assert "SECRETWORDS" not in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "too large"])
@pytest.mark.parametrize("name", ["job.json", "thumbnail.webp"])
def test_no_odd_file_in_a_job_keeps_the_queue_from_starting(start, kept, kind, name):
    path = kept.with_name(name)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**30)  # takes no room on the disk
    queue = start(Runner())
    if name == "job.json":
        assert queue.view().jobs == ()
    else:
        (job,) = wait_idle(queue)
        assert (job.state, job.thumbnail, queue.notices) == ("done", b"", [])


def test_a_job_locked_now_is_restored_at_the_next_start(start, begun, monkeypatch):
    read = Path.read_bytes

    def locked(path: Path) -> bytes:
        if path.name == "job.json":
            raise PermissionError(13, "used by another program", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", locked)
        queue = start(Runner())
        assert queue.view().unfinished == ()
        assert [notice.code for notice in queue.notices] == ["job_unreadable"]
    assert [job.id for job in start(Runner()).view().unfinished] == [begun.id]


@pytest.mark.parametrize("version", ["this", "before"])
def test_jobs_go_on_where_their_home_was_moved_to(request_, tmp_path, version):
    home, moved = tmp_path / "drive" / "home", tmp_path / "新しい home"
    (home / "outputs" / "cats").mkdir(parents=True)
    queue = JobQueue(Runner(), home / "temp" / "jobs", paused=True, home=home)
    jobs = [queue.add(request_, home / "outputs" / "cats"), queue.add(request_, home / "outputs")]
    assert queue.close(SOON)
    if version == "before":
        for path in home.glob("temp/jobs/*/job.json"):
            values = json.loads(path.read_text("utf-8"))
            path.write_text(json.dumps(values | {"folder": str(home / values["folder"])}), "utf-8")
    home.rename(moved)
    home.parent.rmdir()
    again = JobQueue(Runner(), moved / "temp" / "jobs", home=moved)
    try:
        ended = wait_idle(again)
        assert {job.id: job.spec.folder for job in ended} == {
            jobs[0]: moved / "outputs" / "cats",
            jobs[1]: moved / "outputs",
        }
        assert {job.state for job in ended} == {"done"}
        codes = [notice.code for notice in again.notices]
        assert codes == ["output_folder_away"] * (2 if version == "before" else 0)
    finally:
        assert again.close(SOON)


@pytest.mark.parametrize("version", ["this", "other"])
def test_the_video_before_is_found_where_its_home_was_moved_to(request_, tmp_path, version):
    home, moved = tmp_path / "home", tmp_path / "新しい home"
    first, elsewhere = home / "outputs" / "cats" / "first.mp4", tmp_path / "usb" / "first.mp4"
    elsewhere.parent.mkdir()
    queue = JobQueue(Runner(), home / "temp" / "jobs", paused=True, home=home)
    jobs = {
        queue.add(replace(request_, previous_video=str(video)), home / "outputs"): video
        for video in (first, elsewhere)
    }
    assert queue.close(SOON)
    if version == "other":  # whose paths are all absolute, in a copy of the home
        for job in home.glob("temp/jobs/*/job.json"):
            text = job.read_text("utf-8").replace('"outputs/cats/first.mp4"', json.dumps(str(first)))
            job.write_text(text, "utf-8")
        shutil.copytree(home, moved)
        first.parent.mkdir(parents=True)
    else:
        home.rename(moved)
    again = JobQueue(Runner(), moved / "temp" / "jobs", paused=True, home=moved)
    found = {job.id: job.request.previous_video for job in again.view().waiting}
    assert found == {
        job: str(moved / "outputs" / "cats" / "first.mp4" if video == first else video)
        for job, video in jobs.items()
    }
    assert again.close(SOON)


@pytest.mark.parametrize("value", [7, [], {}, "", " ", "a/", "\0"])
def test_a_damaged_name_of_the_video_before_loses_no_other_job(kept, temp, value):
    values = json.loads(kept.read_text("utf-8"))
    values["request"]["previous_video"] = value
    kept.write_text(json.dumps(values), "utf-8")
    again = JobQueue(Runner(), temp, paused=True)
    assert len(again.view().waiting) + len(again.notices) == 1
    assert again.close(SOON)


def test_an_output_folder_that_is_away_is_replaced_and_told(request_, tmp_path):
    home, away = tmp_path / "home", tmp_path / "usb" / "videos"
    away.mkdir(parents=True)
    queue = JobQueue(Runner(), home / "temp" / "jobs", paused=True, home=home)
    for _ in range(2):
        queue.add(request_, away)
    assert queue.close(SOON)
    away.rmdir()
    for default in (home / "outputs", tmp_path / "chosen"):
        again = JobQueue(Runner(), home / "temp" / "jobs", paused=True, home=home, output=default)
        assert {job.spec.folder for job in again.view().waiting} == {default}
        (notice,) = again.notices
        assert (notice.code, notice.values) == (
            "output_folder_away",
            {"path": str(away), "folder": str(default)},
        )
        assert again.close(SOON)
    away.mkdir()
    again = JobQueue(Runner(), home / "temp" / "jobs", paused=True, home=home)
    assert ({job.spec.folder for job in again.view().waiting}, again.notices) == ({away}, [])
    assert again.close(SOON)


def test_a_folder_with_a_name_of_any_bytes_is_restored(request_, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    queue = JobQueue(Runner(), tmp_path / "home" / "temp" / "jobs", paused=True)
    queue.add(request_, folder)
    assert queue.close(SOON)
    again = JobQueue(Runner(), tmp_path / "home" / "temp" / "jobs", paused=True)
    assert [job.spec.folder for job in again.view().waiting] == [folder]
    assert again.close(SOON)


def test_a_job_whose_output_folder_is_away_is_restored(start, begun, monkeypatch):
    away = OSError(107, "Transport endpoint is not connected")
    monkeypatch.setattr(av, "open", Mock(side_effect=away))
    assert [job.id for job in start(Runner()).view().unfinished] == [begun.id]


@pytest.mark.parametrize(("frames", "is_there"), [(None, True), (5, True), (145, False)])
def test_only_the_whole_video_ends_a_job(start, begun, tmp_path, frames, is_there):
    """Somebody may have given the unfinished one its name."""
    video = tmp_path / f"{begun.name}.mp4"
    if frames is None:
        video.write_bytes(b"a video")
    else:
        write_mp4(video, [np.zeros((16, 16, 3), np.uint8)] * frames, crf=30, comment="")
    assert [job.id for job in start(Runner()).view().unfinished] == [begun.id] * is_there
    assert begun.spec.work.exists() is is_there


def test_after_finishing_short_was_begun_the_whole_is_possible(start, begun, tmp_path):
    queue = start(runner := StoppedOnly(2))
    running = queue.add(begun.request, tmp_path)
    wait_until(queue, is_stepping)
    assert queue.finish(begun.id, short=True)
    assert queue._store.load()[0][0].request.close_after == 2
    assert queue.remove(begun.id)
    assert queue.finish(begun.id)
    queue.stop(running)
    wait_until(queue, lambda view: view.running and view.running.id == begun.id)
    assert runner.began[-1].request.close_after is None


@pytest.mark.parametrize("done", [0, 3, 4])
def test_finishing_short_that_leaves_nothing_out_is_finishing(start, begun, done):
    for path in begun.spec.work.iterdir():
        path.unlink()
    for number in range(done):
        (begun.spec.work / f"section_{number:03d}.frames").touch()
    queue = start(runner := Runner())
    assert queue.finish(begun.id, short=True)
    wait_until(queue, lambda view: view.ended)
    assert runner.began[-1].request.close_after is None


@pytest.mark.parametrize("eight_bit", [True, False, None])
def test_an_unfinished_job_goes_on_with_its_own_weights(start, request_, tmp_path, temp, eight_bit):
    path = temp / f"job_{start(Runner(), None, True).add(request_, tmp_path, eight_bit)}" / "job.json"
    assert json.loads(path.read_text("utf-8"))["eight_bit"] is eight_bit
    queue = start(runner := Runner())
    wait_until(queue, lambda view: view.ended)
    assert [spec.eight_bit for spec in runner.began] == [eight_bit]


def test_a_job_of_an_earlier_version_computes_as_the_command_line_says(start, request_, tmp_path, temp):
    path = temp / f"job_{start(Runner(), None, True).add(request_, tmp_path, True)}" / "job.json"
    values = json.loads(path.read_text("utf-8"))
    del values["eight_bit"]
    path.write_text(json.dumps(values), "utf-8")
    queue = start(runner := Runner())
    wait_until(queue, lambda view: view.ended)
    assert [spec.eight_bit for spec in runner.began] == [None]


def test_remains_are_deleted_and_nothing_else(start, begun, temp):
    begun.spec.work.parent.rename(temp / f"gone_{begun.id}")
    left = temp / "job_0123456789abcdef" / "0.png"
    watched = temp / "job_00000000000000aa" / "work" / "so_far_001.mp4"  # an open file on Windows
    others = [temp / "uploads" / "cat.png", temp / "job_of_others" / "cat.png", temp / "job_1"]
    for path in [left, watched, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (temp / "job_fedcba9876543210").symlink_to(temp / "uploads", target_is_directory=True)
    queue = start(Runner())
    assert (queue.view().unfinished, queue.notices) == ((), [])
    assert not left.parent.exists()
    assert not watched.parents[1].exists()
    assert not list(temp.glob("gone_*"))
    assert all(path.exists() for path in others), "not even through a link"

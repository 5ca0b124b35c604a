"""The queue with runners that only pretend: what pages see while jobs wait, run and end."""

import os
import pydoc
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Event, Planned, SectionDone, StageStarted, Stopped
from diffusers_helper.media.images import read_image, to_data_uri
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest, Keyframe
from tests.support.queue import (
    SOON,
    Runner,
    finished,
    is_stepping,
    step,
    wait_idle,
    wait_until,
)
from webui.eichi_utils.jobs import trash
from webui.eichi_utils.jobs.eta import Eta, job_parts
from webui.eichi_utils.jobs.job import JobSpec
from webui.eichi_utils.jobs.pictures import make_thumbnail
from webui.eichi_utils.jobs.queue import KEPT_ENDED, JobQueue


def copies(temp: Path) -> list[Path]:
    """The jobs' pictures; a folder that is deleted meanwhile has none."""
    files = (Path(folder, name) for folder, _, names in os.walk(temp) for name in names)
    return sorted(path for path in files if path.suffix == ".png")


# -- order -------------------------------------------------------------------------------------------


def test_a_job_added_while_another_runs_waits_for_it(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    first = queue.add(request_, tmp_path)
    wait_until(queue, lambda view: view.running)
    second = queue.add(request_, tmp_path)
    view = queue.view()
    assert view.running is not None
    assert (view.running.id, [job.id for job in view.waiting]) == (first, [second])
    assert (view.waiting[0].state, view.waiting[0].elapsed) == ("waiting", None)
    runner.go_on.release(2)
    assert [job.id for job in wait_idle(queue)] == [first, second] == [spec.id for spec in runner.began]


def test_only_a_waiting_job_can_be_removed_or_moved_up_and_none_stopped(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    running, a, b, c = (queue.add(request_, tmp_path) for _ in range(4))
    wait_until(queue, lambda view: view.running)
    assert queue.move_up(c)
    assert [job.id for job in queue.view().waiting] == [a, c, b]
    assert queue.remove(a)
    assert queue.move_up(c), "the first stays the first"
    assert [job.id for job in queue.view().waiting] == [c, b]
    assert queue.find(a) is None
    version = queue.version
    assert not any((queue.remove(running), queue.move_up(running), queue.remove(a), queue.move_up("none")))
    assert not queue.stop(b)
    assert queue.version == version
    runner.go_on.release(3)
    assert [job.id for job in wait_idle(queue)] == [running, c, b]


def test_a_held_job_keeps_its_place_and_waits_until_it_is_released_or_superseded(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    running, a, b, c = (queue.add(request_, tmp_path) for _ in range(4))
    wait_until(queue, lambda view: view.running)
    assert queue.hold(a)
    assert queue.hold(b)
    assert not any((queue.hold(running), queue.hold("none"), queue.release(c), queue.supersede(c, by=a)))
    new = queue.add(replace(request_, prompt="Another one."), tmp_path)
    assert queue.supersede(a, by=new)
    assert [job.id for job in queue.view().waiting] == [new, b, c]
    assert not queue.supersede(a, by=c)
    runner.go_on.release(3)
    wait_until(queue, lambda view: not view.running and [job.id for job in view.waiting] == [b])
    assert queue.release(b)
    assert not queue.release(b)
    runner.go_on.release()
    wait_idle(queue)
    assert [spec.id for spec in runner.began] == [running, new, c, b]


def test_a_held_job_waits_as_any_other_once_it_was_removed_and_brought_back_or_the_app_ended(
    start, request_, tmp_path
):
    queue = start(Runner(held=True), None, True)
    removed, left = queue.add(request_, tmp_path), queue.add(request_, tmp_path)
    assert all(map(queue.hold, (removed, left)))
    assert queue.remove(removed)
    assert queue.restore([removed])
    assert not queue.release(removed), "it is not held any more"
    assert queue.close(SOON)
    assert [job.held for job in start(Runner(), None, True).view().waiting] == [False, False]


def test_what_was_removed_or_cleared_comes_back_in_order_until_its_time_is_over(
    start, request_, tmp_path, temp, monkeypatch
):
    queue = start(runner := Runner(held=True))
    running, *others = (queue.add(request_, tmp_path) for _ in range(4))
    wait_until(queue, lambda view: view.running)
    assert queue.remove(others[1])
    assert queue.restore([others[1]])
    assert [job.id for job in queue.view().waiting] == others
    cleared = queue.clear()
    assert (cleared, queue.view().waiting, queue.clear()) == (others, (), [])
    assert queue.view().running.id == running
    before = [path for path in temp.rglob("*.png") if path.parent.name.startswith("trash_")]
    assert len(before) == 3, "their pictures are kept"
    assert queue.restore(reversed(cleared))
    assert [job.id for job in queue.view().waiting] == others
    monkeypatch.setattr(trash, "SECONDS", 0.05)
    assert queue.remove(others[0])
    wait_until(queue, lambda _: len(copies(temp)) == 3)
    assert not queue.restore([others[0]])
    runner.go_on.release(3)
    assert [job.id for job in wait_idle(queue)] == [running, *others[1:]]


def test_waiting_jobs_and_their_order_survive_the_app(start, request_, tmp_path):
    queue = start(runner := Runner(held=True), None, True)
    a, b, c = (queue.add(replace(request_, seed=seed), tmp_path) for seed in (None, 8, None))
    queue.move_up(c)
    queue.remove(a)
    queue.restore([a])
    again = start(runner, None, True).view().waiting
    assert [(job.id, job.spec.random_seed) for job in again] == [(a, True), (c, True), (b, False)]
    assert [job.spec for job in again] == [job.spec for job in queue.view().waiting]


def test_a_stop_can_be_taken_back_until_the_job_has_noticed_it(start, request_, tmp_path):
    asked, seen = threading.Semaphore(0), []

    def run(_: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        yield step(1)
        while True:
            assert asked.acquire(timeout=SOON)
            seen.append(stop.is_set())
            if seen[-1]:
                assert asked.acquire(timeout=SOON)
                assert stop.is_set(), "whoever has seen it may ask again"
                yield Stopped(None, 0, 1)
                return
            yield step(2)

    queue = start(run)
    job_id = queue.add(request_, tmp_path)
    wait_until(queue, is_stepping)
    assert not queue.keep_going(job_id), "nobody wants it to stop"
    assert queue.stop(job_id)
    assert (queue.view().running.stopping, queue.view().can_keep_going) == (True, True)
    assert queue.keep_going(job_id)
    assert not queue.view().running.stopping
    asked.release()
    view = wait_until(queue, lambda view: view.running and view.running.progress.step == 2)
    assert (seen, view.running.stopping) == ([False], False)
    queue.stop(job_id)
    asked.release()
    wait_until(queue, lambda view: not view.can_keep_going)
    assert not queue.keep_going(job_id), "it is stopping already"
    assert queue.view().running.stopping
    asked.release()
    assert [job.state for job in wait_idle(queue)] == ["stopped"]


def test_a_hundred_jobs_are_unique_and_only_the_newest_are_kept(start, request_, tmp_path, temp):
    queue = start(runner := Runner(held=True))
    ids = [queue.add(request_, tmp_path) for _ in range(100)]
    assert len({job.name for job in queue.view().jobs}) == len(set(ids)) == len(copies(temp)) == 100
    runner.go_on.release(100)
    assert [job.id for job in wait_idle(queue)] == ids[-KEPT_ENDED:]
    assert [spec.id for spec in runner.began] == ids
    assert queue.find(ids[0]) is None
    assert copies(temp) == []


def test_no_job_begins_while_the_queue_is_paused(start, request_, tmp_path, temp):
    queue = start(runner := Runner(), None, True)
    queue.add(request_, tmp_path)
    time.sleep(0.2)
    assert (runner.began, len(queue.view().waiting)) == ([], 1)
    queue.resume()
    wait_idle(queue)
    assert JobQueue(runner, temp, paused=True).close(SOON), "also while it is paused"


# -- what is fixed when a job is added --------------------------------------------------------------


def test_a_random_seed_is_drawn_when_the_job_is_added(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    random = replace(request_, seed=None)
    ids = [queue.add(request, tmp_path) for request in (request_, random, random)]
    seeds = [queue.find(job_id).request.seed for job_id in ids]
    assert seeds[0] == 7
    assert 0 <= seeds[1] < 2**32
    assert seeds[1] != seeds[2]
    runner.go_on.release(3)
    wait_idle(queue)
    assert [spec.request.seed for spec in runner.began] == seeds


def test_an_upload_may_vanish_once_its_job_is_added(start, request_, picture, tmp_path):
    other = picture.with_name("other.png")
    Image.new("RGB", (30, 30), "blue").save(other)
    uri = to_data_uri(np.zeros((16, 16, 3), np.uint8))
    keyframes = (Keyframe(0, uri), Keyframe(1, str(other)), Keyframe(2, prompt="It sleeps."))
    request = replace(request_, end_image=str(picture), keyframes=keyframes)
    uploads, thumbnail = (picture.read_bytes(), other.read_bytes()), make_thumbnail(read_image(str(picture)))
    queue = start(runner := Runner(held=True))
    job = queue.find(queue.add(request, tmp_path))
    picture.unlink(), other.unlink()
    own = job.request
    assert job.thumbnail == thumbnail
    assert (Path(own.start_image).read_bytes(), Path(own.keyframes[1].image).read_bytes()) == uploads
    assert own.end_image == own.start_image, "one picture is one copy"
    assert (own.keyframes[0], own.keyframes[2]) == (keyframes[0], keyframes[2])
    runner.go_on.release()
    wait_idle(queue)
    assert runner.began[0].request == own


def test_an_unreadable_picture_is_refused_before_queueing(start, request_, tmp_path, temp):
    broken = tmp_path / "broken.png"
    Image.effect_noise((200, 200), 50).save(broken)
    os.truncate(broken, 9000)  # it begins well
    queue = start(runner := Runner())
    with pytest.raises(InputError) as caught:
        queue.add(replace(request_, end_image=str(broken)), tmp_path)
    assert (caught.value.code, caught.value.values["image"]) == ("image_cut", str(broken))
    assert (queue.version, runner.began, copies(temp)) == (0, [], [])


def test_an_unwritable_temp_folder_is_a_machine_error(start, request_, tmp_path, temp):
    temp.write_text("a file stands here")
    with pytest.raises(MachineError, match="cannot_write"):
        start(Runner()).add(request_, tmp_path)


# -- the end of a job --------------------------------------------------------------------------------


def test_stop_shows_at_once_and_acts_at_the_next_step(start, request_, tmp_path):
    kept, next_step = tmp_path / "kept.mp4", threading.Semaphore(0)

    def run(_spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        yield SectionDone(0, 2, 33)
        while not stop.is_set():
            yield step(1, section=1, sections=2)
            assert next_step.acquire(timeout=SOON)
        yield Stopped(kept, 1, 2)

    queue = start(run)
    job_id = queue.add(request_, tmp_path)
    wait_until(queue, is_stepping)
    assert not queue.stop("another")
    assert queue.stop(job_id)
    running = queue.view().running
    assert running is not None
    assert (running.state, running.stopping) == ("running", True)
    assert queue.stop(job_id), "a second time changes nothing"
    next_step.release()
    (job,) = wait_idle(queue)
    assert (job.state, job.stopping, job.video, job.frames) == ("stopped", False, kept, 33)
    assert not queue.stop(job_id)


@pytest.mark.parametrize(
    ("error", "code", "values"),
    [
        (MachineError("disk_full", path="/x"), "disk_full", {"path": "/x"}),
        (MemoryError(), "out_of_memory", {}),
        (SystemExit(3), "unexpected", {"reason": "SystemExit: 3"}),
        (LookupError("a\nA cat yawns."), "unexpected", {"reason": "LookupError: a A cat yawns."}),
    ],
)
def test_a_failure_is_reported_and_the_next_job_runs(start, request_, tmp_path, error, code, values):
    queue = start(Runner(lambda spec: [SectionDone(0, 2, 33, spec.folder / "so_far.mp4"), error]))
    queue.add(request_, tmp_path)
    queue.add(request_, tmp_path)
    first, second = wait_idle(queue)
    assert (first.state, second.state) == ("failed", "done")
    failure = first.failure
    assert failure is not None
    assert str(failure.values.pop("place", "queue.py:1")).startswith("queue.py:")
    assert (failure.code, failure.values) == (code, values)
    assert type(error).__name__ in failure.details
    assert "torch" in failure.details
    assert request_.prompt not in failure.details
    assert (first.video, first.frames, second.failure) == (tmp_path / "so_far.mp4", 33, None)


@pytest.mark.parametrize(
    "name", ["queue.describe_failure", "job.Job.end", "store.JobStore.write", "store.JobStore.delete"]
)
def test_whatever_fails_between_two_jobs_the_next_is_made(start, request_, tmp_path, monkeypatch, name):
    queue = start(Runner(lambda _: [RuntimeError("of the job")]), None, True)
    jobs = [queue.add(request_, tmp_path) for _ in range(3)]
    broken = Mock(side_effect=OSError(24, "Too many open files"))
    monkeypatch.setattr(f"webui.eichi_utils.jobs.{name}", broken)
    queue.resume()
    wait_idle(queue)
    assert [queue.find(job).state for job in jobs] == ["failed", "done", "done"]


@pytest.mark.parametrize("name", ["queue.replace", "store.JobStore.write", "queue.JobQueue._make"])
@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), OSError(28, "x")],
)
def test_whatever_is_raised_where_a_job_begins_or_ends_the_next_is_made(
    start, request_, tmp_path, monkeypatch, name, error
):
    monkeypatch.setattr("webui.eichi_utils.jobs.queue.RETRY_SECONDS", 0.01)
    queue = start(Runner(), None, True)
    jobs = [queue.add(request_, tmp_path) for _ in range(3)]
    target = f"webui.eichi_utils.jobs.{name}"
    owner, _, attribute = target.rpartition(".")
    real = getattr(pydoc.locate(owner), attribute)
    failing = iter([error, error])

    def fail_twice(*arguments, **named):
        for raised in failing:
            raise raised
        return real(*arguments, **named)

    monkeypatch.setattr(target, fail_twice)
    queue.resume()
    ended = wait_idle(queue)
    assert {job.id for job in ended} == set(jobs)
    assert ended[-1].state == "done"
    assert all(job.failure or job.state == "done" for job in ended)
    assert not queue.has_stopped


def test_a_thread_that_has_ended_shows_and_closing_is_none(request_, tmp_path, temp, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "_work", lambda _: None)
        queue = JobQueue(Runner(), temp)
    queue.add(request_, tmp_path)
    wait_until(queue, lambda view: view.has_stopped)
    assert queue.close(SOON)
    assert not queue.view().has_stopped
    other = JobQueue(Runner(), temp)
    wait_idle(other)
    assert other.close(SOON)
    assert not other.has_stopped


def test_a_failed_job_shows_its_unfinished_video(start, request_, tmp_path):
    def fail(spec: JobSpec) -> list[Event | BaseException]:
        spec.unfinished_video.write_bytes(b"video")
        return [SectionDone(0, 2, 33), MachineError("out_of_memory")]

    queue = start(Runner(fail))
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert (job.video, job.frames) == (tmp_path / f"{job.name}_unfinished.mp4", 33)


@pytest.mark.parametrize(
    ("course", "state", "code"),
    [
        (lambda _: [StageStarted("prompt")], "failed", "internal"),
        (lambda spec: [finished(spec), OSError("the job's folder cannot be deleted")], "done", None),
    ],
)
def test_the_result_counts_and_nothing_after_it(start, request_, tmp_path, course, state, code):
    queue = start(Runner(course))
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert (job.state, job.failure and job.failure.code) == (state, code)


def test_a_failed_runner_is_closed_before_the_next_job_begins(start, request_, tmp_path):
    course: list[str] = []

    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        course.append("begin")
        try:
            yield Planned(None, 64, 64, 7)  # type: ignore[arg-type]  # no plan: the job cannot take it
            yield finished(spec)
        finally:
            course.append("clean")

    queue = start(run)
    queue.add(request_, tmp_path)
    queue.add(request_, tmp_path)
    assert [job.state for job in wait_idle(queue)] == ["failed", "failed"]
    assert course == ["begin", "clean"] * 2


def test_a_running_job_has_an_eta_and_its_speed_is_learned(start, request_, tmp_path):
    learned, go_on = [], threading.Semaphore(0)

    def course(spec: JobSpec) -> Generator[Event, None, None]:
        yield Planned(make_plan(spec.request), 64, 64, 7)
        yield StageStarted("sampling", 0)
        yield from map(step, range(1, 9))
        assert go_on.acquire(timeout=SOON)
        yield from map(step, range(9, 17))
        yield from (StageStarted("decoding", 0), SectionDone(0, 1, 37), finished(spec))

    def start_eta(request: GenerationRequest, planned: Planned) -> Eta:
        return Eta(job_parts(request, planned.plan, 64, 64), learn=learned.append)

    queue = start(Runner(course), start_eta)
    queue.add(replace(request_, steps=16), tmp_path)
    view = wait_until(queue, lambda view: view.running and view.running.preview_number == 8)
    assert view.version == 2 + 10, "it was added, it began, and each event is a change"
    running = view.running
    assert running.progress.seconds_left >= 0
    assert 0 < running.progress.fraction < 1
    assert queue.find(running.id).elapsed > running.elapsed
    go_on.release()
    (job,) = wait_idle(queue)
    assert (job.progress.seconds_left, job.progress.fraction, len(learned)) == (None, 1.0, 1)


def test_no_view_mixes_the_progress_of_two_jobs(start, request_, tmp_path):
    """Each job's seed is its number of steps, and of its frames."""

    def course(spec: JobSpec) -> Generator[Event, None, None]:
        seed = spec.request.seed
        for number in range(1, 80):
            yield step(number, seed)
        yield finished(spec, seed)

    queue, seeds, version = start(Runner(*[course] * 15)), range(100, 115), 0
    for seed in seeds:
        queue.add(replace(request_, seed=seed), tmp_path)
    while (view := queue.view()).running or view.waiting:
        assert view.version >= version
        version = view.version
        for job in filter(None, (view.running, *view.ended)):
            assert {job.progress.steps, job.frames} <= {0, job.request.seed}
    assert [job.frames for job in wait_idle(queue)] == list(seeds)

"""The queue with runners that only pretend: what pages see while jobs wait, run and end."""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import (
    Event,
    Notice,
    Planned,
    SectionDone,
    StageStarted,
    StepDone,
    Stopped,
)
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import write_mp4
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest, Keyframe
from tests.support.queue import SOON, finished, wait_until
from webui.eichi_utils.jobs import queue as jobs
from webui.eichi_utils.jobs.eta import Eta, JobSize
from webui.eichi_utils.jobs.job import Job, JobSpec, Run, StartEta
from webui.eichi_utils.jobs.queue import KEPT_ENDED, JobQueue, QueueView

PREVIEW = np.zeros((4, 36, 3), np.uint8)


def step(number: int, steps: int = 16, section: int = 0, sections: int = 1, value: int = 0) -> StepDone:
    return StepDone(section, sections, number, steps, True, PREVIEW + np.uint8(value))


class Runner:
    """Finishes each job at once, or when `go_on` is released; records which began."""

    def __init__(self, *, held: bool = False) -> None:
        self.began: list[JobSpec] = []
        self.go_on = threading.Semaphore(0 if held else 10**6)

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        self.began.append(spec)
        yield StageStarted("prompt")
        assert self.go_on.acquire(timeout=SOON)
        yield step(1)
        yield Stopped(None, 0, 1) if stop.is_set() else finished(spec)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., JobQueue]]:
    """Makes queues with temp files below `tmp_path/temp`, which are closed afterwards."""
    made: list[JobQueue] = []

    def start_queue(run: Run, start_eta: StartEta | None = None) -> JobQueue:
        made.append(JobQueue(run, tmp_path / "temp", start_eta))
        return made[-1]

    yield start_queue
    for queue in made:
        assert queue.close(SOON)


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "upload" / "cat.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 20), "red").save(path)
    return path


@pytest.fixture
def request_(picture) -> GenerationRequest:
    return GenerationRequest(start_image=str(picture), prompt="A cat yawns.", seed=7)


def wait_idle(queue: JobQueue) -> tuple[Job, ...]:
    """All that ended, oldest first, once nothing runs or waits."""
    view = wait_until(queue, lambda view: all_ended(view) and not view.running and not view.waiting)
    return all_ended(view)


def all_ended(view: QueueView) -> tuple[Job, ...]:
    return tuple(sorted((*view.ended, *view.unfinished), key=lambda job: job.ended))


def copies(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "temp").rglob("*") if path.suffix == ".png")


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
    assert len(copies(tmp_path)) == 3, "its pictures are deleted"
    assert queue.move_up(c), "the first stays the first"
    assert [job.id for job in queue.view().waiting] == [c, b]
    assert queue.find(a) is None
    version = queue.version
    assert not any((queue.remove(running), queue.move_up(running), queue.remove(a), queue.move_up("none")))
    assert not queue.stop(b)
    assert queue.version == version
    runner.go_on.release(3)
    assert [job.id for job in wait_idle(queue)] == [running, c, b]


def test_a_hundred_jobs_have_unique_names_and_copies_on_disk(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    ids = {queue.add(request_, tmp_path) for _ in range(100)}
    wait_until(queue, lambda view: view.running)
    view = queue.view()
    names = {job.name for job in view.waiting} | {view.running.name if view.running else ""}
    assert len(ids) == len(names) == len(copies(tmp_path)) == 100
    runner.go_on.release(100)
    assert len(wait_idle(queue)) == KEPT_ENDED
    assert len(runner.began) == 100
    assert copies(tmp_path) == []


def test_a_name_that_a_queued_job_has_is_not_given_twice(start, request_, tmp_path, monkeypatch):
    names = iter(["a", "a", "a", "b"])
    monkeypatch.setattr(jobs, "new_name", lambda _folder: next(names))
    queue = start(runner := Runner(held=True))
    first, second = (queue.add(request_, tmp_path) for _ in range(2))
    assert [queue.find(first).name, queue.find(second).name] == ["a", "b"]
    runner.go_on.release(2)
    wait_idle(queue)


# -- what is fixed when a job is added --------------------------------------------------------------


def test_a_random_seed_is_drawn_when_the_job_is_added(start, request_, tmp_path):
    queue = start(runner := Runner(held=True))
    random = dataclasses.replace(request_, seed=None)
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
    request = dataclasses.replace(request_, end_image=str(picture), keyframes=keyframes)
    content, other_content = picture.read_bytes(), other.read_bytes()
    queue = start(runner := Runner(held=True))
    job = queue.find(queue.add(request, tmp_path))
    picture.unlink(), other.unlink()
    own = job.request
    assert Path(own.start_image).read_bytes() == content
    assert own.end_image == own.start_image, "one picture is one copy"
    assert own.keyframes[0] == keyframes[0]
    assert Path(own.keyframes[1].image).read_bytes() == other_content
    assert own.keyframes[2] == keyframes[2]
    runner.go_on.release()
    wait_idle(queue)
    assert runner.began[0].request == own


@pytest.mark.parametrize(
    ("content", "code"), [(b"no picture", "not_an_image"), (b"", "image_empty"), (None, "image_missing")]
)
def test_an_unreadable_picture_is_refused_before_queueing(start, request_, picture, tmp_path, content, code):
    broken = picture.with_name("broken.png")
    if content is not None:
        broken.write_bytes(content)
    queue = start(runner := Runner())
    with pytest.raises(InputError) as caught:
        queue.add(dataclasses.replace(request_, end_image=str(broken)), tmp_path)
    assert (caught.value.code, caught.value.values) == (code, {"image": str(broken)})
    assert (queue.version, runner.began, copies(tmp_path)) == (0, [], [])


def test_a_picture_cut_short_is_refused_though_it_begins_well(start, request_, picture, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(picture)
    picture.write_bytes(picture.read_bytes()[:60_000])
    with pytest.raises(InputError) as caught:
        start(Runner()).add(request_, tmp_path)
    assert caught.value.code == "image_broken"


def test_an_unwritable_temp_folder_is_a_machine_error(start, request_, tmp_path):
    (tmp_path / "temp").write_text("a file stands here")
    with pytest.raises(MachineError) as caught:
        start(Runner()).add(request_, tmp_path)
    assert caught.value.code == "cannot_write"


# -- the course of a job ----------------------------------------------------------------------------


def test_a_view_shows_stage_section_step_and_size(start, request_, tmp_path):
    request = dataclasses.replace(request_, steps=2, seconds=2)
    plan = make_plan(request)
    assert len(plan.sections) == 2
    part = tmp_path / "part.mp4"
    events: list[Event] = [
        StageStarted("prompt"),
        Notice("prompt_too_long", {"prompt": "A", "tokens": 1}),
        Notice("prompt_too_long", {"prompt": "A", "tokens": 1}),
        Planned(plan, 64, 96, 7),
        StageStarted("sampling", 0),
        step(1, 2, 0, 2),
        StageStarted("decoding", 0),
        SectionDone(0, 2, 33, part),
        StageStarted("sampling", 1),
        SectionDone(1, 2, 73),  # this time, the video so far could not be written
    ]
    seen_by_test, seen = threading.Semaphore(0), []

    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        for event in [*events, finished(spec, 73)]:
            yield event
            assert seen_by_test.acquire(timeout=SOON)

    queue = start(run)
    job_id = queue.add(request, tmp_path)
    for number in range(len(events) + 1):
        # Version 1 is the adding, 2 the beginning; each event is one more.
        seen.append(wait_until(queue, lambda view, n=number: view.version == n + 3).running)
        seen_by_test.release()
    names = ["prompt", "", "notice", "plan", "begin", "step", "decode", "one", "next", "two", "finished"]
    views = dict(zip(names, seen, strict=True))
    assert [view.progress.stage for view in seen[:4]] == ["prompt"] * 4
    assert views["notice"].notices == (("prompt_too_long", {"prompt": "A", "tokens": 1}),)
    planned = views["plan"].progress
    assert (planned.frames, planned.width, planned.height) == (73, 64, 96)
    assert planned.seconds == pytest.approx(73 / 30)
    assert (planned.section, planned.sections, planned.step) == (0, 2, 0)
    assert views["step"].progress.step == 1
    assert (views["decode"].progress.stage, views["decode"].progress.step) == ("decoding", 1)
    assert (views["one"].video, views["one"].frames) == (part, 33)
    assert (views["next"].progress.section, views["next"].progress.step) == (1, 0)
    assert (views["two"].video, views["two"].frames) == (part, 33)
    (job,) = wait_idle(queue)
    assert (job.id, job.state, job.frames, job.progress.fraction) == (job_id, "done", 73, 1.0)
    assert job.video == tmp_path / f"{job.name}.mp4"
    assert (job.progress.stage, job.stopping, job.failure, job.spec.folder) == (None, False, None, tmp_path)
    elapsed = job.elapsed
    assert elapsed is not None
    assert elapsed == queue.view().ended[0].elapsed, "time stands still for what has ended"


def test_stop_shows_at_once_and_acts_at_the_next_step(start, request_, tmp_path):
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"video")
    next_step = threading.Semaphore(0)

    def run(_spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        yield SectionDone(0, 2, 33)
        while not stop.is_set():
            yield step(1, section=1, sections=2)
            assert next_step.acquire(timeout=SOON)
        yield Stopped(kept, 1, 2)

    queue = start(run)
    job_id = queue.add(request_, tmp_path)
    wait_until(queue, lambda view: view.running and view.running.progress.step == 1)
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


# -- failures ----------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[JobSpec], None]:
    def fail(_spec: JobSpec) -> None:
        raise error

    return fail


class FailingOnce(Runner):
    """Its first job ends in what is given, after a section; others are finished."""

    def __init__(self, end: Callable[[JobSpec], None]) -> None:
        super().__init__()
        self._end = end

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        if not self.began:
            self.began.append(spec)
            yield SectionDone(0, 2, 33, spec.folder / "so_far.mp4")
            self._end(spec)
        else:
            yield from super().__call__(spec, stop)


@pytest.mark.parametrize(
    ("error", "code", "values"),
    [
        (MachineError("disk_full", path="/x"), "disk_full", {"path": "/x"}),
        (MemoryError(), "out_of_memory", {}),
        (SystemExit(3), "unexpected", {"reason": "SystemExit: 3"}),
        (LookupError("two\nlines"), "unexpected", {"reason": "LookupError: two lines"}),
    ],
)
def test_a_failure_is_reported_and_the_next_job_runs(start, request_, tmp_path, error, code, values):
    queue = start(FailingOnce(raising(error)))
    queue.add(request_, tmp_path)
    queue.add(request_, tmp_path)
    first, second = wait_idle(queue)
    assert (first.state, second.state) == ("failed", "done")
    failure = first.failure
    assert failure is not None
    place = failure.values.pop("place", "test_queue.py:1")
    assert str(place).startswith("test_queue.py:")
    assert (failure.code, failure.values) == (code, values)
    assert type(error).__name__ in failure.details
    assert "torch" in failure.details
    assert (first.video, first.frames, second.failure) == (tmp_path / "so_far.mp4", 33, None)


def test_a_failed_job_shows_its_unfinished_video(start, request_, tmp_path):
    def fail(spec: JobSpec) -> None:
        (spec.folder / f"{spec.name}_unfinished.mp4").write_bytes(b"video")
        raise MachineError("out_of_memory")

    queue = start(FailingOnce(fail))
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert job.video == tmp_path / f"{job.name}_unfinished.mp4"
    assert job.frames == 33


def test_failure_details_hold_no_prompt_picture_or_home(start, request_, tmp_path):
    private = f"{request_.prompt} data:image/png;base64,QUJD {Path.home() / 'cat.png'}"
    queue = start(FailingOnce(raising(ValueError(private))))
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert job.failure is not None
    details = job.failure.details
    assert "ValueError: [text] [picture] ~" in details
    assert not any(text in details for text in (request_.prompt, "QUJD", str(Path.home())))


def test_a_runner_that_ends_without_a_result_has_failed(start, request_, tmp_path):
    def run(_spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        yield StageStarted("prompt")

    queue = start(run)
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert job.failure is not None
    assert (job.state, job.failure.code) == ("failed", "internal")


def test_an_error_after_the_result_keeps_the_result(start, request_, tmp_path):
    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        yield finished(spec)
        raise OSError("the job's folder cannot be deleted")

    queue = start(run)
    queue.add(request_, tmp_path)
    (job,) = wait_idle(queue)
    assert (job.state, job.failure) == ("done", None)


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


# -- pictures ----------------------------------------------------------------------------------------


def open_webp(content: bytes | None, folder: Path) -> Image.Image:
    assert content is not None
    path = folder / "picture.webp"
    path.write_bytes(content)
    image = Image.open(path)
    assert image.format == "WEBP"
    return image.convert("RGB")


def test_the_thumbnail_is_small_upright_and_of_the_start_image(start, picture, tmp_path):
    photo = Image.new("RGB", (600, 300), "red")
    photo.paste("blue", (0, 0, 300, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: what was left is on top
    photo.save(tmp_path / "photo.jpg", exif=exif)
    request = GenerationRequest(start_image=str(tmp_path / "photo.jpg"), end_image=str(picture), seed=1)
    queue = start(Runner())
    job_id = queue.add(request, tmp_path)
    assert wait_idle(queue)[0].thumbnail
    thumbnail = open_webp(queue.thumbnail(job_id), tmp_path)
    assert thumbnail.size == (64, 128)
    assert thumbnail.getpixel((32, 20))[2] > 200
    assert thumbnail.getpixel((32, 108))[0] > 200
    assert queue.thumbnail("none") is None


def test_a_preview_is_encoded_once_a_step_and_scaled_up(start, request_, tmp_path):
    go_on = threading.Semaphore(0)

    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        for number in (1, 2):
            yield step(number, value=100 * number)
            assert go_on.acquire(timeout=SOON)
        yield finished(spec)

    queue = start(run)
    job_id = queue.add(request_, tmp_path)
    assert queue.preview(job_id) is None or queue.find(job_id).preview_number == 1
    for number in (1, 2):
        wait_until(queue, lambda view, n=number: view.running and view.running.preview_number == n)
        preview = queue.preview(job_id)
        assert preview is queue.preview(job_id)
        image = open_webp(preview, tmp_path)
        assert image.size == (36 * 8, 4 * 8)
        assert image.getpixel((5, 5)) == pytest.approx((100 * number,) * 3, abs=3)
        go_on.release()
    (job,) = wait_idle(queue)
    assert (job.preview_number, queue.preview(job_id)) == (0, None), "what has ended holds no pixels"


# -- time left ---------------------------------------------------------------------------------------


def test_a_running_job_has_an_eta_and_its_speed_is_learned(start, request_, tmp_path):
    learned, go_on = [], threading.Semaphore(0)

    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        yield Planned(make_plan(spec.request), 64, 64, 7)
        yield StageStarted("sampling", 0)
        yield step(8, 16)
        yield step(8, 16)
        assert go_on.acquire(timeout=SOON)
        yield finished(spec)

    def start_eta(request: GenerationRequest, planned: Planned) -> Eta:
        return Eta(JobSize(request.steps, planned.width, (1,), skips_steps=False), learn=learned.append)

    queue = start(run, start_eta)
    queue.add(dataclasses.replace(request_, steps=16), tmp_path)
    running = wait_until(queue, lambda view: view.running and view.running.preview_number == 2).running
    assert running.progress.seconds_left >= 0
    assert running.progress.fraction == pytest.approx(0.5, abs=0.1)
    assert queue.find(running.id).elapsed > running.elapsed
    go_on.release()
    (job,) = wait_idle(queue)
    assert (job.progress.seconds_left, job.progress.fraction, len(learned)) == (None, 1.0, 1)


# -- many at once ------------------------------------------------------------------------------------


def test_no_view_mixes_the_progress_of_two_jobs(start, request_, tmp_path):
    """Each job's seed is its number of steps, and its step the number of frames that it has."""

    def run(spec: JobSpec, _stop: threading.Event) -> Generator[Event, None, None]:
        seed = spec.request.seed
        assert seed is not None
        for number in range(1, 40):
            yield step(number, steps=seed)
            yield SectionDone(0, 1, seed * 1000 + number, spec.folder / f"{spec.name}_{number}.mp4")
        yield finished(spec, seed * 1000)

    mixed: list[Job] = []
    done = threading.Event()

    def watch(queue: JobQueue) -> None:
        version = 0
        while not done.is_set():
            view = queue.view()
            assert view.version >= version
            version = view.version
            mixed.extend(job for job in (view.running, *view.ended) if job and not is_whole(job))

    def is_whole(job: Job) -> bool:
        if not job.frames:
            return job.progress.steps in (0, job.request.seed)
        is_own = job.video is not None and job.video.name.startswith(job.name)
        return is_own and job.progress.steps == job.request.seed == job.frames // 1000

    queue = start(run)
    watchers = [threading.Thread(target=watch, args=(queue,)) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for seed in range(100, 115):
        queue.add(dataclasses.replace(request_, seed=seed), tmp_path)
    ended = wait_idle(queue)
    done.set()
    for watcher in watchers:
        watcher.join(SOON)
    assert [job.request.seed for job in ended] == list(range(100, 115))
    assert mixed == []


# -- what is left ------------------------------------------------------------------------------------


def test_only_the_newest_ended_jobs_are_kept_without_copies(start, request_, tmp_path):
    queue = start(Runner())
    ids = [queue.add(request_, tmp_path) for _ in range(KEPT_ENDED + 5)]
    wait_until(queue, lambda view: view.ended and view.ended[0].id == ids[-1])
    assert [job.id for job in queue.view().ended] == ids[:4:-1]
    assert queue.find(ids[4]) is None
    assert queue.thumbnail(ids[4]) is None
    wait_until(queue, lambda _: not copies(tmp_path))


class StoppedOnly(Runner):
    """Makes a section if it is to, then works until it is stopped."""

    def __init__(self, sections: int = 0, video: Path | None = None) -> None:
        super().__init__()
        self._sections, self._video = sections, video

    def __call__(self, spec: JobSpec, stop: threading.Event) -> Generator[Event, None, None]:
        self.began.append(spec)
        yield Planned(make_plan(spec.request), 64, 64, 7)
        for section in range(self._sections):
            spec.work.mkdir(exist_ok=True)
            (spec.work / f"section_{section:03d}.frames").touch()
            yield SectionDone(section, 4, 33 + 36 * section, self._video)
        yield step(1, section=self._sections, sections=4)
        assert stop.wait(SOON)
        yield Stopped(None, self._sections, 4)


def test_closing_stops_the_job_and_the_next_start_finds_all(start, request_, tmp_path):
    queue = JobQueue(StoppedOnly(), tmp_path / "temp")
    first, second, third = (queue.add(request_, tmp_path) for _ in range(3))
    wait_until(queue, lambda view: view.running and view.running.progress.step)
    assert queue.close(SOON)
    with pytest.raises(MachineError) as caught:
        queue.add(request_, tmp_path)
    assert caught.value.code == "closing"
    again = start(runner := Runner(held=True))
    (job,) = again.view().unfinished
    assert (job.id, job.state, job.can_finish, job.request.prompt) == (
        first,
        "interrupted",
        True,
        request_.prompt,
    )
    wait_until(again, lambda view: view.running)
    assert {spec.id for spec in runner.began} | {job.id for job in again.view().waiting} == {second, third}
    runner.go_on.release(2)


# -- unfinished jobs ---------------------------------------------------------------------------------


LONG = {"seconds": 5}
"""The length of a video of four sections."""


def test_a_stopped_job_can_be_finished_if_it_has_sections(start, request_, tmp_path):
    for sections in (0, 2):
        queue = start(StoppedOnly(sections))
        job_id = queue.add(dataclasses.replace(request_, **LONG), tmp_path)
        wait_until(queue, lambda view: view.running and view.running.progress.step)
        queue.stop(job_id)
        (job,) = wait_idle(queue)
        assert (job.state, job.can_finish, job.progress.sections_done) == ("stopped", sections > 0, sections)
        assert bool(copies(tmp_path)) is (sections > 0)
        assert queue.close(SOON)


@pytest.mark.parametrize("short", [False, True])
def test_an_unfinished_job_is_resumed_before_all_that_wait(start, request_, tmp_path, short):
    queue = start(runner := StoppedOnly(2))
    first, *others = (queue.add(dataclasses.replace(request_, **LONG), tmp_path) for _ in range(3))
    wait_until(queue, lambda view: view.running and view.running.progress.step)
    queue.stop(first)
    wait_until(queue, lambda view: view.unfinished and view.running and view.running.progress.step)
    (job,) = queue.view().unfinished
    assert job.can_finish_short
    assert queue.finish(first, short)
    assert not queue.finish(first), "only once"
    view = queue.view()
    assert (view.unfinished, [job.id for job in view.waiting]) == ((), [first, others[1]])
    queue.stop(others[0])
    wait_until(queue, lambda view: view.running and view.running.id == first)
    again = runner.began[-1]
    assert (again.id, again.name, again.work) == (first, job.name, runner.began[0].work)
    assert again.request.close_after == (2 if short else None)
    assert again.request == dataclasses.replace(
        runner.began[0].request, close_after=again.request.close_after
    )


def test_removing_a_resumed_job_from_the_queue_loses_nothing(start, request_, tmp_path):
    queue = start(StoppedOnly(2))
    first, second = (queue.add(dataclasses.replace(request_, **LONG), tmp_path) for _ in range(2))
    wait_until(queue, lambda view: view.running and view.running.progress.step)
    queue.stop(first)
    wait_until(queue, lambda view: view.unfinished and view.running and view.running.progress.step)
    assert queue.finish(first)
    assert queue.remove(first)
    (job,) = queue.view().unfinished
    assert (job.id, job.state, job.can_finish, job.progress.sections_done) == (first, "interrupted", True, 2)
    assert (queue._store.work_folder(first) / "section_001.frames").exists()
    queue.stop(second)
    wait_until(queue, lambda view: not view.running)
    assert [stored.state for stored in queue._store.load()[0]] == ["interrupted"] * 2


def test_a_discarded_job_leaves_nothing(start, request_, tmp_path):
    queue = start(StoppedOnly(1))
    job_id = queue.add(dataclasses.replace(request_, **LONG), tmp_path)
    wait_until(queue, lambda view: view.running and view.running.progress.step)
    assert not queue.discard(job_id), "not while it runs"
    queue.stop(job_id)
    (job,) = wait_idle(queue)
    endings = (
        ".png",
        "_unfinished.mp4",
        ".mp4.part",
        "_section_001.png",
        "_section_012.mp4.part",
        ".png.part",
    )
    left = [tmp_path / f"{job.name}{ending}" for ending in endings]
    others = [tmp_path / f"{job.name}{ending}" for ending in (".mp4", "2.png", "_section_1.txt", ".txt")]
    for path in left + others:
        path.touch()
    assert queue.discard(job_id)
    assert not queue.discard(job_id)
    assert queue.find(job_id) is None
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    assert list((tmp_path / "temp").iterdir()) == []


def test_after_a_crash_a_job_has_its_thumbnail_and_sections(request_, tmp_path):
    video = tmp_path / "temp" / "x.mp4"
    hung = JobQueue(StoppedOnly(2, video), tmp_path / "temp")
    job_id = hung.add(dataclasses.replace(request_, **LONG), tmp_path)
    view = wait_until(hung, lambda view: view.running and view.running.progress.step)
    assert view.running is not None
    work = hung._store.work_folder(job_id)
    for number in (1, 2):
        (work / f"so_far_{number:03d}.mp4").touch()
    again = JobQueue(runner := StoppedOnly(), tmp_path / "temp")  # as if the first had been killed
    (job,) = again.view().unfinished
    assert (job.state, job.video, job.frames) == ("interrupted", work / "so_far_002.mp4", 69)
    assert (job.progress.sections_done, job.progress.sections) == (2, 4)
    assert again.thumbnail(job_id) == hung.thumbnail(job_id)
    assert again.finish(job_id)
    wait_until(again, lambda view: view.running)
    assert (runner.began[0].request, runner.began[0].work) == (view.running.request, work)
    assert again.close(SOON)
    assert hung.close(SOON)


def test_the_order_of_the_queue_is_restored(start, request_, tmp_path, monkeypatch):
    first = JobQueue(Runner(held=True), tmp_path / "temp")
    names = iter(f"name {number}" for number in (5, 3, 9, 1))
    monkeypatch.setattr(jobs, "new_name", lambda _: next(names))
    running, a, b, c = (first.add(request_, tmp_path) for _ in range(4))
    wait_until(first, lambda view: view.running)
    first.move_up(c)
    again = start(runner := Runner(held=True))
    wait_until(again, lambda view: view.running)
    assert [job.id for job in again.view().unfinished] == [running]
    assert [runner.began[0].id, *(job.id for job in again.view().waiting)] == [a, c, b]
    for queue_runner in (runner, first._run):
        queue_runner.go_on.release(9)
    assert first.close(SOON)


def test_no_job_begins_while_the_queue_is_paused(request_, tmp_path):
    queue = JobQueue(runner := Runner(), tmp_path / "temp", paused=True)
    queue.add(request_, tmp_path)
    time.sleep(0.2)
    assert (runner.began, len(queue.view().waiting)) == ([], 1)
    queue.resume()
    wait_idle(queue)
    assert queue.close(SOON)
    assert JobQueue(runner, tmp_path / "temp", paused=True).close(SOON), "also while it is paused"


def test_a_damaged_job_is_set_aside_with_a_notice(start, request_, tmp_path):
    first = JobQueue(Runner(held=True), tmp_path / "temp")
    broken, whole = (first.add(request_, tmp_path) for _ in range(2))
    wait_until(first, lambda view: view.running)
    path = tmp_path / "temp" / f"job_{broken}" / "job.json"
    path.write_text(path.read_text()[:-20])
    again = start(runner := Runner())
    wait_until(again, lambda view: view.ended)
    assert [spec.id for spec in runner.began] == [whole]
    aside = tmp_path / "temp" / f"unreadable_{broken}"
    assert [(notice.code, notice.values) for notice in again.notices] == [
        ("job_unreadable", {"path": str(aside)})
    ]
    assert (aside / "0.png").exists()
    first._run.go_on.release(9)
    assert first.close(SOON)


@pytest.mark.parametrize("position", ["Infinity", "1e400", "[" * 100_000, "null"])
def test_no_damage_keeps_the_queue_from_starting(start, request_, tmp_path, position):
    first = JobQueue(Runner(held=True), tmp_path / "temp")
    broken = first.add(request_, tmp_path)
    wait_until(first, lambda view: view.running)
    path = tmp_path / "temp" / f"job_{broken}" / "job.json"
    path.write_text(path.read_text().replace('"place": 0', f'"place": {position}'))
    assert [notice.code for notice in start(Runner()).notices] == ["job_unreadable"]
    assert path.parent.with_name(f"unreadable_{broken}").exists()
    first._run.go_on.release(9)
    assert first.close(SOON)


@pytest.fixture
def begun(request_, tmp_path) -> Iterator[Job]:
    """A job with two of four sections that an app has left which was killed."""
    hung = JobQueue(StoppedOnly(2), tmp_path / "temp")
    hung.add(dataclasses.replace(request_, **LONG), tmp_path)
    view = wait_until(hung, lambda view: view.running and view.running.progress.step and view)
    yield view.running
    assert hung.close(SOON)


def test_a_job_locked_now_is_restored_at_the_next_start(start, begun, monkeypatch):
    read = Path.read_text

    def locked(path: Path, *arguments: str) -> str:
        if path.name == "job.json":
            raise PermissionError(13, "used by another program", str(path))
        return read(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", locked)
        queue = start(Runner())
        assert queue.view().unfinished == ()
        assert [notice.code for notice in queue.notices] == ["job_unreadable"]
    assert [job.id for job in start(Runner()).view().unfinished] == [begun.id]


def test_a_job_whose_output_folder_is_away_is_restored(start, begun, monkeypatch):
    exists = Path.exists

    def away(path: Path, **options: bool) -> bool:
        if path.suffix == ".mp4":
            raise OSError(107, "Transport endpoint is not connected", str(path))
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", away)
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
    assert bool(copies(tmp_path)) is is_there


def test_after_finishing_short_was_begun_the_whole_is_possible(start, begun, tmp_path):
    queue = start(runner := StoppedOnly(2))
    running = queue.add(
        dataclasses.replace(begun.request, start_image=str(begun.request.start_image)), tmp_path
    )
    wait_until(queue, lambda view: view.running and view.running.progress.step)
    assert queue.finish(begun.id, short=True)
    assert queue._store.load()[0][0].spec.request.close_after == 2
    assert queue.remove(begun.id)
    assert queue.finish(begun.id)
    queue.stop(running)
    wait_until(queue, lambda view: view.running and view.running.id == begun.id)
    assert runner.began[-1].request.close_after is None


@pytest.mark.parametrize("done", [0, 3, 4])
def test_finishing_short_that_leaves_nothing_out_is_finishing(start, begun, tmp_path, done):
    work = tmp_path / "temp" / f"job_{begun.id}" / "work"
    for path in work.iterdir():
        path.unlink()
    for number in range(done):
        (work / f"section_{number:03d}.frames").touch()
    queue = start(runner := Runner())
    assert queue.finish(begun.id, short=True)
    wait_until(queue, lambda view: view.ended)
    assert runner.began[-1].request.close_after is None


def test_a_half_deleted_job_is_not_restored(start, begun, tmp_path):
    folder = tmp_path / "temp" / f"job_{begun.id}"
    folder.rename(folder.with_name(f"gone_{begun.id}"))
    queue = start(Runner())
    assert (queue.view().unfinished, queue.notices) == ((), [])
    assert not list((tmp_path / "temp").glob("gone_*"))


def test_no_text_of_a_damaged_job_is_logged(start, request_, tmp_path, caplog):
    first = JobQueue(Runner(), tmp_path / "temp", paused=True)
    path = tmp_path / "temp" / f"job_{first.add(request_, tmp_path)}" / "job.json"
    assert first.close(SOON)
    values = json.loads(path.read_text("utf-8"))
    values["request"]["keyframes"] = "SECRETWORDS"
    path.write_text(json.dumps(values), "utf-8")
    assert start(Runner()).notices
    assert "cannot be read: keyframes_not_a_list (keyframes)" in caplog.text
    assert "SECRETWORDS" not in caplog.text


def test_closing_waits_no_longer_than_its_timeout(request_, tmp_path):
    queue = JobQueue(runner := Runner(held=True), tmp_path / "temp")
    queue.add(request_, tmp_path)
    wait_until(queue, lambda view: view.running)
    assert not queue.close(0.01)
    runner.go_on.release()
    assert queue.close(SOON)


def test_the_remains_of_a_crash_are_deleted_and_nothing_else(start, tmp_path):
    temp = tmp_path / "temp"
    left = temp / "job_0123456789abcdef" / "0.png"
    others = [temp / "uploads" / "cat.png", temp / "job_of_others" / "cat.png", temp / "job_1"]
    for path in [left, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (temp / "job_fedcba9876543210").symlink_to(temp / "uploads", target_is_directory=True)
    start(Runner())
    assert not left.parent.exists()
    assert all(path.exists() for path in others), "not even through a link"


def test_queue_and_runner_import_neither_torch_nor_gradio():
    code = (
        "import sys; from webui.eichi_utils.jobs import queue, runner\n"
        "print([name for name in ('torch', 'gradio', 'diffusers') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"

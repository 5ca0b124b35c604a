"""A job after each event of its runner, and the pictures that pages show of it."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.events import (
    Event,
    Notice,
    Planned,
    Resumed,
    SectionDone,
    StageProgress,
    StageStarted,
    Stopped,
)
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from tests.support.queue import finished, step
from webui.eichi_utils.jobs.job import MAX_NOTICES, Job, JobSpec, apply
from webui.eichi_utils.jobs.pictures import make_preview, make_thumbnail

REQUEST = GenerationRequest(start_image="cat.png", seed=7, steps=2, seconds=2)
SPEC = JobSpec("0" * 16, "cat", Path("/videos"), REQUEST, Path("/jobs"))
RUNNING = Job(SPEC, state="running", started=1.0)
PART, NEWER = Path("/jobs/part.mp4"), Path("/jobs/newer.mp4")
SIZE = {"frames": 73, "seconds": 73 / 30, "width": 64, "height": 96, "sections": 2}
LONG_PROMPT = ("prompt_too_long", {"prompt": "A", "tokens": 1})
COURSE: list[tuple[Event, dict[str, object]]] = [
    (StageStarted("prompt"), {"stage": "prompt", "step": 0, "elapsed": None}),
    (StageProgress(0.5), {"stage": "prompt", "stage_fraction": 0.5}),
    (Notice(*LONG_PROMPT), {"notices": (LONG_PROMPT,)}),
    (Notice(*LONG_PROMPT), {"notices": (LONG_PROMPT,)}),
    (Planned(make_plan(REQUEST), 64, 96, 7), {"stage": "prompt", "section": 0, "step": 0, **SIZE}),
    (StageStarted("sampling", 0), {"stage": "sampling", "stage_fraction": None, "section": 0}),
    (step(1, 2, 0, 2), {"step": 1, "steps": 2, "preview_number": 1}),
    (StageStarted("decoding", 0), {"stage": "decoding", "step": 1, "frames_done": 0, "steps_kept": True}),
    (
        SectionDone(0, 2, 33, PART),
        {"video": PART, "frames_done": 33, "sections_done": 1, "steps_kept": False},
    ),
    (StageStarted("sampling", 1), {"section": 1, "step": 0}),
    (step(2, 2, 1, 2), {"section": 1, "step": 2, "preview_number": 2}),
    (
        SectionDone(1, 2, 73),
        {"video": PART, "frames_done": 73, "sections_done": 2},
    ),  # not written
    (finished(SPEC, 73), {"video": Path("/videos/cat.mp4"), "outcome": "done", "fraction": 1.0}),
]


def shown(job: Job) -> dict[str, object]:
    return {**vars(job), **vars(job.progress), "video_frames": job.frames}


def test_each_event_changes_what_pages_show():
    job = RUNNING
    for event, expected in COURSE:
        job = apply(job, event, 5.0)
        assert {key: shown(job)[key] for key in expected} == expected, event
        assert job.frames in {None: (0,), PART: (33,)}.get(job.video, (73,))
    assert job.at(6.0).elapsed == 5.0
    over = job.end(7.0, None, can_finish=False)
    assert (over.state, over.elapsed, over.at(9.0).elapsed, over.ended) == ("done", 6.0, 6.0, 7.0)
    assert (over.progress.stage, over.preview, over.preview_number, over.failure) == (None, None, 0, None)


def test_a_job_that_goes_on_with_decoding_tells_its_section_and_keeps_its_steps():
    job = apply(apply(RUNNING, Resumed(1, 2, 33), 5.0), StageStarted("decoding", 1), 6.0)
    assert (job.progress.section, job.progress.steps_kept) == (1, True)
    ended = apply(job, Stopped(None, 1, 2), 7.0).end(8.0, None, can_finish=True)
    again = ended.requeued(REQUEST, 3).progress
    assert (ended.progress.steps_kept, again.sections_done, again.steps_kept) == (True, 1, True)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Resumed(1, 2, 33, NEWER), {"video": NEWER, "video_frames": 33, "sections_done": 1}),
        (Resumed(1, 2, 33), {"video": PART, "video_frames": 5, "frames_done": 33}),
        (Stopped(NEWER, 1, 2), {"video": NEWER, "outcome": "stopped"}),
        (Stopped(None, 1, 2), {"video": PART, "outcome": "stopped"}),
    ],
)
def test_a_video_stays_until_there_is_a_newer_one(event, expected):
    job = apply(replace(RUNNING, video=PART, frames=5), event, 5.0)
    assert {key: shown(job)[key] for key in expected} == expected


def test_notices_are_limited():
    job = RUNNING
    for number in range(MAX_NOTICES + 5):
        job = apply(job, Notice("prompt_too_long", {"prompt": "A", "tokens": number}), 5.0)
    assert len(job.notices) == MAX_NOTICES


# -- pictures ----------------------------------------------------------------------------------------


def open_webp(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    return image.convert("RGB")


def test_a_thumbnail_is_small():
    photo = np.zeros((600, 300, 3), np.uint8)
    photo[:300, :, 2], photo[300:, :, 0] = 255, 255
    thumbnail = open_webp(make_thumbnail(photo))
    assert thumbnail.size == (64, 128)
    assert thumbnail.getpixel((32, 20))[2] > 200
    assert thumbnail.getpixel((32, 108))[0] > 200


@pytest.mark.parametrize(
    ("shape", "size"), [((80, 76), (304, 320)), ((20, 28), (320, 229)), ((1, 990), (320, 1))]
)
def test_a_preview_moves_through_its_frames_as_fast_as_the_video(shape, size):
    levels = 100, 160, 220
    frames = np.stack([np.full((*shape, 3), level, np.uint8) for level in levels])
    image = Image.open(io.BytesIO(make_preview(frames)))
    assert (image.size, image.n_frames) == (size, 3)
    for number, level in enumerate(levels):
        image.seek(number)
        assert image.convert("RGB").getpixel((5, 0)) == pytest.approx((level,) * 3, abs=4)
        assert image.info["duration"] == 133  # four frames at 30 a second


def test_a_job_whose_output_folder_is_gone_has_left_nothing(tmp_path):
    (tmp_path / "cat_unfinished.mp4").touch()
    assert [path.name for path in replace(SPEC, folder=tmp_path).left_files()] == ["cat_unfinished.mp4"]
    assert replace(SPEC, folder=tmp_path / "gone").left_files() == []

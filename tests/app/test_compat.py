"""Files that the version before the rooms has written (`tests/compat`): the app still reads them."""

import shutil
from pathlib import Path

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.video import count_frames
from diffusers_helper.request import is_data_uri
from tests.support.queue import LONG, wait_until
from tests.support.tiny import MODELS
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.runner import JobRunner

COMPAT = Path(__file__).parents[1] / "compat"
JOB = "job_103c16d13c0eb94b"


def test_videos_and_pictures_carry_their_request():
    for name in ("video.mp4", "video.png"):
        request = load_request(COMPAT / name)
        assert (request.prompt, request.seed, request.seconds, request.steps) == ("A cat.", 7, 2, 4)
        assert (request.width, request.height) == (64, 64)
        assert [(keyframe.section, keyframe.prompt) for keyframe in request.keyframes] == [(0, "It jumps.")]
        assert request.start_image is not None
        assert is_data_uri(request.start_image) or Path(request.start_image) == COMPAT / name


def test_an_unfinished_job_goes_on_behind_its_sections(tmp_path):
    folder = Path(shutil.copytree(COMPAT / JOB, tmp_path / "temp" / JOB))
    stored = (folder / "job.json").read_text("utf-8").replace("OUTPUT", (tmp_path / "out").as_posix())
    (folder / "job.json").write_text(stored, "utf-8")
    runner = JobRunner(EngineOptions(MODELS, tmp_path / "cache", "cpu", None))
    queue = JobQueue(runner, tmp_path / "temp")
    (job,) = queue.view().unfinished
    assert (job.progress.sections_done, job.request.prompt) == (1, "A cat.")
    before = (folder / "work" / "section_000.latents").stat().st_mtime_ns
    assert queue.finish(job.id)
    wait_until(queue, lambda view: view.running and view.running.progress.section == 1, LONG)
    assert (folder / "work" / "section_000.latents").stat().st_mtime_ns == before, "it is not made again"
    view = wait_until(queue, lambda view: not view.running and not view.waiting, LONG)
    (done,) = view.ended
    assert done.state == "done"
    assert done.video == tmp_path / "out" / f"{job.name}.mp4"
    assert count_frames(done.video) == done.frames == 73
    assert queue.close(LONG)

"""Files as earlier versions wrote them are read, and nothing in them is lost.

All are of the version before the rooms, but `whole.*`, of the first one that kept whole pictures.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import read_size
from diffusers_helper.media.packed_picture import read_fitted
from diffusers_helper.media.video import count_frames
from diffusers_helper.request import is_data_uri
from tests.support.queue import LONG, wait_until
from tests.support.tiny import MODELS
from webui.eichi_utils.app import SETTINGS_FIELDS
from webui.eichi_utils.engine_options import EngineOptions
from webui.eichi_utils.form import renew_settings
from webui.eichi_utils.jobs.queue import JobQueue
from webui.eichi_utils.jobs.runner import JobRunner
from webui.eichi_utils.output import resolve_output
from webui.eichi_utils.settings.presets import PresetStore
from webui.eichi_utils.settings.settings import SettingsStore

JOB = "job_103c16d13c0eb94b"
OLD = Path(__file__).parent / "webui"
"""The app's folder, filled by that version with a value of each kind that is no default."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "webui"))


def test_old_settings_are_read_and_stay(home):
    path = home / "settings" / "app_settings.json"
    old = json.loads(path.read_text("utf-8"))
    new = {"eight_bit": False, "embed_request": True, "join": True, "form": ""}
    kept = {key: value for key, value in old.items() if key not in ("mode", "use_all_padding")}
    kept |= {"loop": True}
    assert set(kept | new) == set(SETTINGS_FIELDS), "each of them is tried"
    assert all(value != SETTINGS_FIELDS[key].default for key, value in kept.items())
    store = SettingsStore(path, SETTINGS_FIELDS, renew_settings)
    assert (store.load(), store.notices) == (kept | new, [])
    store.update(steps=30)
    assert json.loads(path.read_text("utf-8")) == kept | {"steps": 30}
    path.write_text(json.dumps(old | {"mode": "normal", "use_all_padding": False}), "utf-8")
    other = SettingsStore(path, SETTINGS_FIELDS, renew_settings).load()
    assert (other["loop"], other["all_padding"]) == (False, None)
    assert resolve_output(old["output_folder"], home) == home / "outputs" / "猫"


def test_old_presets_are_read_and_stay(home):
    path = home / "presets" / "prompt_presets.json"
    old = json.loads(path.read_text("utf-8"))
    store = PresetStore(path, [("starter", "x")])
    assert store.notices == []
    assert {name: store.prompt_of(name) for name in store.names()} == {
        "踊る": "The girl dances.",
        "猫 👨‍👩‍👧": "A cat yawns.\nIt sleeps.  ",
        "half \\": "\ud800 of a character",
    }
    assert store.startup_name() == "猫 👨‍👩‍👧"
    store.save("new", "x")
    new = json.loads(path.read_text("utf-8"))
    assert new | {"presets": new["presets"][:3]} == old


def test_videos_and_pictures_carry_their_request():
    for name in ("video.mp4", "video.png"):
        request = load_request(OLD.parent / name)
        assert (request.prompt, request.seed, request.seconds, request.steps) == ("A cat.", 7, 2, 4)
        assert (request.width, request.height) == (64, 64)
        assert [(keyframe.section, keyframe.prompt) for keyframe in request.keyframes] == [(0, "It jumps.")]
        assert request.start_image is not None
        assert is_data_uri(request.start_image) or Path(request.start_image) == OLD.parent / name


def test_videos_and_pictures_carry_a_whole_picture_and_the_part_that_they_were_made_from():
    with Image.open(OLD.parent / "whole.png") as image:
        part = np.asarray(image)
    for name in ("whole.mp4", "whole.png"):
        request = load_request(OLD.parent / name)
        assert (request.prompt, request.seed, request.loop) == ("A wave.", 9, True)
        assert read_size(request.start_picture) == (1536, 2048)
        assert np.array_equal(read_fitted(request.start_picture, 48, 64), part)


def test_an_unfinished_job_goes_on_behind_its_sections(tmp_path):
    folder = Path(shutil.copytree(OLD.parent / JOB, tmp_path / "temp" / JOB))
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

"""A job that ended early is resumed, to the same video as if nothing had happened."""

import json
import shutil
import threading
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Finished, Notice, Planned, Resumed, SectionDone, StageStarted, StepDone
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.video import read_frames
from tests.support.tiny import (
    GOLDEN,
    VAE_FILE,
    copy_models,
    load_latents,
    make_loader,
    run,
    small_request,
    work_of,
)

END = str(GOLDEN / "keyframes/keyframe_00.png")


def three_sections(**values):
    """A request of three sections, of 17, 20 and 24 frames."""
    return small_request(seconds=2, steps=3, **values)


def make(folder, until=lambda _: False, loader=None, **values):
    """Make a video up to an event for which `until` holds; returns the events."""
    seen = []
    events = run(three_sections(**values), folder, save_latents=True, loader=loader)
    for event in events:
        seen.append(event)
        if until(event):
            events.close()
            break
    return seen


def section_done(number):
    return lambda event: isinstance(event, SectionDone) and event.section == number


def in_step(section, step):
    return lambda event: isinstance(event, StepDone) and (event.section, event.step) == (section, step)


def in_stage(stage, section=None):
    return lambda event: event == StageStarted(stage, section)


def content(folder):
    """The files of a finished video."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of the same video made in one run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    make(folder, end_image=END)
    return content(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The files of the video without an end picture, and the latents among them."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    make(folder)
    return content(folder), load_latents(folder / "a.safetensors")


MOMENTS = {
    "before the first section": in_stage("transformer"),
    "in the first section": in_step(0, 2),
    "while the first section is decoded": in_stage("decoding", 0),
    "after the first section": section_done(0),
    "in the last section": in_step(2, 3),
    "after the last section": section_done(2),
    "while the video is written": in_stage("saving"),
}
QUICK = ("in the first section", "after the first section")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, moment in MOMENTS.items()
    ],
)
def test_the_resumed_video_is_the_same_to_the_byte(tmp_path, whole, moment):
    make(tmp_path / "out", moment, end_image=END)
    assert isinstance(make(tmp_path / "out", end_image=END)[-1], Finished)
    assert content(tmp_path / "out") == whole
    assert not work_of(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("until", "sampled"), [(in_step(1, 1), {1, 2}), (in_stage("decoding", 1), {2})], ids=["step", "decoding"]
)
def test_what_was_sampled_and_decoded_is_not_made_again(tmp_path, until, sampled):
    make(tmp_path / "out", until)
    values = json.loads((work_of(tmp_path / "out") / "request.json").read_text("utf-8"))
    assert (values["prompt"], values["seed"]) == ("A cat.", 1)
    events = make(tmp_path / "out")
    assert events[1] == Resumed(1, 3, 17)
    assert {event.section for event in events if isinstance(event, StepDone)} == sampled
    assert [event.section for event in events if isinstance(event, SectionDone)] == [1, 2]


def test_with_all_sections_stored_no_model_is_loaded(tmp_path, monkeypatch):
    make(tmp_path / "out", in_stage("saving"))
    loader = make_loader()
    for name in ("text_encoder", "image_encoder", "vae", "transformer"):
        monkeypatch.setattr(loader, name, lambda *_: pytest.fail("loaded"))
    assert isinstance(make(tmp_path / "out", loader=loader)[-1], Finished)


def test_a_random_seed_is_drawn_once(tmp_path):
    first = make(tmp_path / "out", section_done(0), seed=None)
    again = make(tmp_path / "out", seed=None)
    seeds = {event.seed for event in (*first, *again) if isinstance(event, Planned)}
    assert len(seeds) == 1
    assert load_request(tmp_path / "out" / "a.mp4").seed in seeds


@pytest.mark.parametrize("kind", ["latents", "frames"])
def test_a_damaged_section_is_reported_and_made_again(tmp_path, plain, kind):
    make(tmp_path / "out", section_done(2))
    path = work_of(tmp_path / "out") / f"section_001.{kind}"
    path.write_bytes(path.read_bytes()[:-40])
    events = make(tmp_path / "out")
    assert Notice("section_damaged", {"section": 2, "sections": 3}) in events
    assert [event.section for event in events if isinstance(event, SectionDone)] == [1, 2]
    assert content(tmp_path / "out") == plain[0]


@pytest.mark.parametrize("change", [{"prompt": "A dog."}, {"seed": 2}])
def test_another_request_of_that_name_is_rejected(tmp_path, change):
    make(tmp_path / "out", section_done(1))
    with pytest.raises(InputError) as caught:
        make(tmp_path / "out", **change)
    assert caught.value.code == "unfinished_other"
    assert caught.value.values == {"path": str(work_of(tmp_path / "out"))}
    assert make(tmp_path / "out")[1] == Resumed(2, 3, 37)


def test_another_request_takes_a_name_without_finished_sections(tmp_path):
    make(tmp_path / "out", in_step(0, 1))
    assert isinstance(make(tmp_path / "out", prompt="A dog.")[-1], Finished)


def test_other_models_do_not_resume_a_video(tmp_path):
    make(tmp_path / "out", section_done(0))
    other = make_loader(copy_models(tmp_path / "models", VAE_FILE, decoder__conv_out__conv__bias=0.5))
    with pytest.raises(InputError) as caught:
        make(tmp_path / "out", loader=other)
    assert caught.value.code == "unfinished_other_models"
    assert isinstance(make(tmp_path / "out")[-1], Finished)


def test_a_failed_job_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        events = run(three_sections(), tmp_path / "out")
        next(event for event in events if isinstance(event, SectionDone))
        no_memory = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
        patch.setattr("diffusers_helper.pipeline.decode_to", no_memory)
        with pytest.raises(MachineError, match="out_of_memory"):
            list(events)
    assert sorted(content(tmp_path / "out")) == ["a.png", "a_unfinished.mp4"]
    assert make(tmp_path / "out")[1] == Resumed(1, 3, 17)


def test_a_damaged_section_is_reported_in_its_own_job_only(tmp_path):
    loader = make_loader()
    make(tmp_path / "out", section_done(0), loader=loader)
    (path,) = work_of(tmp_path / "out").glob("section_000.frames")
    path.write_bytes(b"damaged")
    told = [make(tmp_path / name, section_done(0), loader=loader) for name in ("out", "other")]
    codes = [[event.code for event in events if isinstance(event, Notice)] for events in told]
    assert codes == [["section_damaged"], []]


def test_an_output_folder_that_vanishes_is_made_again(tmp_path):
    for event in run(three_sections(), tmp_path / "out"):
        if isinstance(event, SectionDone) and event.section == 1:
            shutil.rmtree(tmp_path / "out")
    assert isinstance(event, Finished)
    assert sorted(content(tmp_path / "out")) == ["a.mp4", "a.png"]


# -- finishing short ------------------------------------------------------------------------------------


def test_a_shortened_video_has_its_end_and_the_start_picture(tmp_path, plain):
    make(tmp_path / "out", section_done(0))
    *_, end = make(tmp_path / "out", close_after=1)
    long, short = plain[1], load_latents(tmp_path / "out" / "a.safetensors")
    assert (long.shape[2], short.shape[2]) == (16, 11)
    assert torch.equal(short[:, :, -5:], long[:, :, -5:])
    assert torch.equal(short[:, :, :1], long[:, :, :1])
    assert len(list(read_frames(end.video))) == end.frames == 41
    again = load_request(tmp_path / "out" / "a.mp4")
    assert again.close_after == 1
    list(run(again, tmp_path / "again" / "out", save_latents=True))
    assert torch.equal(load_latents(tmp_path / "again" / "out" / "a.safetensors"), short)


def test_a_job_begun_to_finish_short_can_still_be_made_whole(tmp_path, plain):
    make(tmp_path / "out", section_done(0))
    make(tmp_path / "out", in_stage("saving"), close_after=1)
    assert (tmp_path / "out" / "a_unfinished.mp4").exists()
    assert make(tmp_path / "out")[1] == Resumed(1, 3, 17)
    assert content(tmp_path / "out") == plain[0]


def test_a_stop_while_resuming_keeps_all_sections(tmp_path):
    make(tmp_path / "out", section_done(1))
    stop = threading.Event()
    stop.set()
    *_, last = run(three_sections(), tmp_path / "out", stop=stop)
    assert (last.sections_done, last.sections) == (2, 3)
    frames = np.stack(list(read_frames(last.kept)))
    assert len(frames) == 37

"""One whole job: what it tells, what it keeps, what it refuses."""

import json
import shutil
import socket
import threading

import av
import numpy as np
import pytest
import torch

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Finished, Notice, Planned, SectionDone, StageStarted, StepDone, Stopped
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import read_image
from diffusers_helper.media.video import read_frames
from diffusers_helper.models.loading import ModelLoader
from diffusers_helper.vae.codec import decode_latents, decode_to, encode_picture
from diffusers_helper.vae.decoder import WindowDecoder
from tests.support.tiny import (
    GOLDEN,
    LAST_SHARD,
    START,
    VAE_FILE,
    copy_models,
    load_latents,
    make_loader,
    make_request,
    run,
)

LUMA = np.array([0.2126, 0.7152, 0.0722])


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_events_tell_the_whole_story(tmp_path):
    events = list(run(make_request(seconds=2, steps=2), tmp_path / "out"))
    planned, finished = events[0], events[-1]
    assert isinstance(planned, Planned)
    assert (planned.width, planned.height, planned.plan.pixel_frames, planned.seed) == (96, 64, 73, 1)
    steps = [(e.section, e.step) for e in events if isinstance(e, StepDone)]
    assert steps == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [e.pixel_frames for e in events if isinstance(e, SectionDone)] == [33, 73]
    stages = [e.stage for e in events if isinstance(e, StageStarted)]
    assert stages == ["prompt", "vision", "images", "transformer"] + ["sampling", "decoding"] * 2 + ["saving"]
    assert isinstance(finished, Finished)
    assert (finished.frames, finished.width, finished.height) == (73, 96, 64)
    assert files(tmp_path / "out") == ["a.mp4", "a.png"]


def test_preview_shows_the_latent_frames_side_by_side(tmp_path):
    event = next(e for e in run(make_request(), tmp_path / "out") if isinstance(e, StepDone))
    assert event.preview.shape == (8, 9 * 12, 3)
    assert event.preview.dtype == np.uint8


def test_what_was_planned_comes_out(tmp_path):
    events = list(run(make_request(seconds=1, section_seconds=0.5), tmp_path / "out"))
    assert len(list(read_frames(tmp_path / "out" / "a.mp4"))) == events[0].plan.pixel_frames == 41


def test_the_same_seed_makes_the_same_video_and_another_seed_another(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        list(run(make_request(seed=seed), tmp_path / "out", name=name, save_latents=True))
    a, b, c = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in "abc")
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=1e-2)
    # x264 itself encodes the same frames a little differently from time to time.
    a, b, c = (np.stack(list(read_frames(tmp_path / "out" / f"{name}.mp4"))).astype(int) for name in "abc")
    assert np.abs(a - b).mean() < 1
    assert np.abs(a - c).mean() > 5


@pytest.mark.parametrize("ending", [".mp4", ".png"])
def test_a_written_file_alone_makes_the_same_video_again(tmp_path, ending):
    first, second = tmp_path / "first", tmp_path / "second"
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("start.png", "keyframe_00.png"):
        shutil.copy(GOLDEN / "keyframes" / name, photos / name)
    keyframes = [{"section": 0, "image": str(photos / "keyframe_00.png")}, {"section": 1, "prompt": "Jumps."}]
    request = make_request(
        start_image=str(photos / "start.png"), end_image=START, seconds=2, seed=None, keyframes=keyframes,
        prompt="猫が「歩く」。", width=64, height=80,
    )  # fmt: skip
    list(run(request, first, save_latents=True))
    shutil.rmtree(photos)
    moved = (first / f"a{ending}").rename(tmp_path / f"moved{ending}")

    again = load_request(moved)
    list(run(again, second, save_latents=True))
    assert again.prompt == request.prompt
    assert torch.equal(load_latents(first / "a.safetensors"), load_latents(second / "a.safetensors"))


def test_section_videos_are_parts_of_the_whole_with_their_stills(tmp_path):
    request = make_request(seconds=4, keep_section_videos=True, save_section_stills=True, crf=1)
    list(run(request, tmp_path / "out"))
    whole = list(read_frames(tmp_path / "out" / "a.mp4"))
    parts = [list(read_frames(tmp_path / "out" / f"a_section_{i:03d}.mp4")) for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [37, 36, 36]
    joined = [frame for part in parts for frame in part]
    assert np.mean(np.abs(np.stack(whole).astype(int) - np.stack(joined))) < 2
    for number, part in enumerate(parts, 1):
        still = load_picture(tmp_path / "out" / f"a_section_{number:03d}.png")
        near, far = (np.abs(frame.astype(int) - still).mean() for frame in (part[-1], part[-6]))
        assert near < far / 2


def load_picture(path):
    from PIL import Image

    return np.asarray(Image.open(path)).astype(int)


def test_the_video_starts_with_the_start_pictures_latent(tmp_path):
    list(run(make_request(crf=1), tmp_path / "out", save_latents=True))
    latents = load_latents(tmp_path / "out" / "a.safetensors")
    with make_loader().vae() as vae:
        assert torch.equal(latents[:, :, :1], encode_picture(read_image(START), vae))
        decoded = decode_latents(latents, vae, 2**40)[0].numpy()
    first = next(read_frames(tmp_path / "out" / "a.mp4")).astype(float)
    assert np.sqrt(np.mean(((first - decoded) @ LUMA) ** 2)) < 3


def test_stop_keeps_the_finished_sections_as_a_video_of_the_end(tmp_path):
    stop = threading.Event()
    events = []
    for event in run(make_request(seconds=4, steps=2), tmp_path / "out", stop=stop):
        events.append(event)
        if isinstance(event, SectionDone):
            stop.set()
    stopped = events[-1]
    assert stopped == Stopped(tmp_path / "out" / "a_unfinished.mp4", 1, 3)
    assert events[-2] == StageStarted("saving")
    assert len(list(read_frames(stopped.kept))) == 33
    assert files(tmp_path / "out") == ["a.png", "a_unfinished.mp4"]
    assert not any(isinstance(e, StepDone) and e.section == 1 for e in events)


def test_stop_acts_between_two_steps(tmp_path):
    stop = threading.Event()
    steps = 0
    for event in run(make_request(steps=8), tmp_path / "out", stop=stop):
        if isinstance(event, StepDone):
            steps += 1
            stop.set()
    assert steps == 1
    assert event == Stopped(None, 0, 1)
    assert files(tmp_path / "out") == ["a.png"]


def test_a_stop_before_the_work_starts_writes_nothing(tmp_path):
    stop = threading.Event()
    stop.set()
    *_, last = run(make_request(), tmp_path / "out", stop=stop)
    assert last == Stopped(None, 0, 1)
    assert files(tmp_path / "out") == []


def test_a_listener_that_leaves_loses_no_finished_section(tmp_path):
    events = run(make_request(seconds=2), tmp_path / "out")
    next(e for e in events if isinstance(e, SectionDone))
    events.close()
    assert files(tmp_path / "out") == ["a.png", "a_unfinished.mp4"]


def test_a_listener_that_leaves_during_a_stop_loses_no_section(tmp_path):
    stop = threading.Event()
    events = run(make_request(seconds=2), tmp_path / "out", stop=stop)
    next(e for e in events if isinstance(e, SectionDone))
    stop.set()
    next(e for e in events if e == StageStarted("saving"))
    events.close()
    assert files(tmp_path / "out") == ["a.png", "a_unfinished.mp4"]


def test_a_listener_that_leaves_at_the_end_finds_only_the_video(tmp_path):
    events = run(make_request(), tmp_path / "out")
    next(e for e in events if isinstance(e, Finished))
    events.close()
    assert files(tmp_path / "out") == ["a.mp4", "a.png"]


def test_numbers_that_are_none_are_noticed_at_the_first_step(tmp_path):
    models = copy_models(tmp_path / "models", LAST_SHARD, proj_out__bias=float("nan"))
    events = run(make_request(steps=4), tmp_path / "out", loader=make_loader(models))
    with pytest.raises(MachineError) as caught:
        for event in events:
            assert not isinstance(event, StepDone)
    assert caught.value.code == "not_a_number_in_latents"
    assert caught.value.values["step"] == 1


def test_pixels_that_are_no_numbers_are_noticed(tmp_path):
    models = copy_models(tmp_path / "models", VAE_FILE, decoder__conv_out__conv__bias=float("inf"))
    with pytest.raises(MachineError) as caught:
        list(run(make_request(), tmp_path / "out", loader=make_loader(models)))
    assert caught.value.code == "not_a_number_in_pixels"
    assert "a.mp4" not in files(tmp_path / "out")


def test_a_black_section_is_noticed_unless_the_picture_is_black(tmp_path):
    changes = {"decoder__conv_out__conv__bias": -9.0, "decoder__conv_out__conv__weight": 0.0}
    loader = make_loader(copy_models(tmp_path / "models", VAE_FILE, **changes))
    with pytest.raises(MachineError) as caught:
        list(run(make_request(), tmp_path / "out", loader=loader))
    assert caught.value.code == "black_section"

    from PIL import Image

    Image.new("RGB", (96, 64)).save(tmp_path / "black.png")
    *_, last = run(make_request(start_image=str(tmp_path / "black.png")), tmp_path / "out", loader=loader)
    assert isinstance(last, Finished)


def test_a_failure_later_on_keeps_the_finished_sections(tmp_path, monkeypatch):
    events = run(make_request(seconds=2), tmp_path / "out")
    next(e for e in events if isinstance(e, SectionDone))

    def no_memory(*_args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("diffusers_helper.pipeline.decode_to", no_memory)
    with pytest.raises(MachineError) as caught:
        list(events)
    assert caught.value.code == "out_of_memory"
    assert files(tmp_path / "out") == ["a.png", "a_unfinished.mp4"]


def test_the_decoder_is_loaded_once_for_all_sections_of_a_job(tmp_path, monkeypatch):
    """Before the transformer, whose layers stay as far as there is memory then."""
    loaded = []

    def watch(name):
        original = getattr(ModelLoader, name)
        monkeypatch.setattr(ModelLoader, name, lambda *given: loaded.append(name) or original(*given))

    watch("vae_decoder")
    watch("transformer")
    *_, last = run(make_request(seconds=3), tmp_path / "out")
    assert isinstance(last, Finished)
    assert loaded == ["vae_decoder", "transformer"]


def test_layers_are_given_up_before_tiles_become_smaller(tmp_path, monkeypatch):
    asked = []

    def decode(*given):
        *_, may_shrink, _starts = given
        asked.append(may_shrink)
        if len(asked) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_to(*given)

    monkeypatch.setattr("diffusers_helper.pipeline.decode_to", decode)
    monkeypatch.setattr("diffusers_helper.models.vram_budget.plan_vram", lambda *_: [0, 1])
    *_, last = run(make_request(), tmp_path / "out")
    assert isinstance(last, Finished)
    assert asked == [False, False, True]


@pytest.mark.parametrize("section", [0, 1])
def test_out_of_memory_while_decoding_is_retried_without_lost_frames(tmp_path, monkeypatch, section):
    request = make_request(seconds=2, steps=2)
    list(run(request, tmp_path / "out", name="a"))
    original, windows = WindowDecoder.forward, []

    def fail_once(decoder, latents):
        windows.append(latents)
        if len(windows) == (2 if section == 0 else 6):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(decoder, latents)

    monkeypatch.setattr(WindowDecoder, "forward", fail_once)
    monkeypatch.setattr("diffusers_helper.models.vram_budget.plan_vram", lambda *_: [0, 1])
    list(run(request, tmp_path / "out", name="b"))
    assert len(windows) == 3 + 6 + (2 if section == 0 else 3)
    first, second = ((tmp_path / "out" / f"{name}.mp4") for name in "ab")
    assert all((a == b).all() for a, b in zip(read_frames(first), read_frames(second), strict=True))


def test_the_next_run_loads_no_encoder_for_what_it_knows(tmp_path, monkeypatch):
    list(run(make_request(), tmp_path / "out", name="a"))
    loader = make_loader()
    for name in ("text_encoder", "text_encoder_2", "image_encoder"):
        monkeypatch.setattr(loader, name, lambda: pytest.fail("loaded"))
    *_, last = run(make_request(seed=2), tmp_path / "out", name="b", loader=loader)
    assert isinstance(last, Finished)


def test_the_negative_prompt_is_only_encoded_when_it_is_used(tmp_path, monkeypatch):
    encoded = []
    from diffusers_helper.encoding import conditioning

    original = conditioning.encode_prompts

    def watch(prompts, loader):
        encoded.extend(prompts)
        return original(prompts, loader)

    monkeypatch.setattr(conditioning, "encode_prompts", watch)
    list(run(make_request(negative_prompt="bad"), tmp_path / "out"))
    assert encoded == ["A cat."]
    list(run(make_request(negative_prompt="bad", guidance_scale=2), tmp_path / "out"))
    assert encoded == ["A cat.", "bad"]


def test_a_prompt_that_is_too_long_is_reported_also_from_the_cache(tmp_path):
    request = make_request(prompt="a cat walks " * 400)
    for _ in range(2):
        notices = [e for e in run(request, tmp_path / "out") if isinstance(e, Notice)]
        assert [notice.code for notice in notices] == ["prompt_too_long"]
        assert notices[0].values["tokens"] > 100


def test_nothing_touches_the_network(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a network access")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    *_, last = run(make_request(), tmp_path / "out")
    assert isinstance(last, Finished)


def test_pictures_of_other_shapes_take_the_start_pictures_size(tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 90), "red").save(tmp_path / "wide.png")
    Image.new("L", (50, 400), 90).save(tmp_path / "tall.png")
    Image.new("RGB", (200, 200), "blue").save(tmp_path / "square.png")
    request = make_request(
        start_image=str(tmp_path / "square.png"),
        end_image=str(tmp_path / "wide.png"),
        keyframes=[{"section": 0, "image": str(tmp_path / "tall.png")}],
        resolution=64,
        width=None,
        height=None,
    )
    *_, last = run(request, tmp_path / "out")
    assert (last.width, last.height) == (64, 64)


def test_without_a_start_image_the_last_keyframe_is_the_start(tmp_path):
    keyframes = [{"section": 0, "image": START}, {"section": 1, "image": str(GOLDEN / "keyframes/start.png")}]
    named = make_request(seconds=2, keyframes=keyframes, start_image=keyframes[1]["image"])
    without = make_request(seconds=2, keyframes=keyframes, start_image=None)
    for name, request in (("a", named), ("b", without)):
        list(run(request, tmp_path / "out", name=name, save_latents=True))
    a, b = (load_latents(tmp_path / "out" / f"{name}.safetensors") for name in "ab")
    assert torch.equal(a, b)


def test_the_video_carries_its_request(tmp_path):
    list(run(make_request(seed=None, prompt='「猫」 "cat"\n{}'), tmp_path / "out"))
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        values = json.loads(container.metadata["comment"])
    assert values["prompt"] == '「猫」 "cat"\n{}'
    assert isinstance(values["seed"], int)
    assert (values["width"], values["height"]) == (96, 64)


def test_a_disk_without_room_is_told_before_the_work(tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("diffusers_helper.machine_errors.shutil.disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(MachineError) as caught:
        list(run(make_request(), tmp_path / "out"))
    assert caught.value.code == "disk_too_small"
    assert files(tmp_path / "out") == []


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        list(run(make_request(), tmp_path / "file" / "out"))
    assert caught.value.code == "output_not_writable"

"""One whole job: what it tells, what it keeps, what it refuses."""

import shutil
import socket
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_helper.encoding import conditioning
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import (
    Finished,
    Notice,
    Planned,
    SectionDone,
    StageProgress,
    StageStarted,
    StepDone,
    Stopped,
)
from diffusers_helper.media import packed_picture
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import read_image
from diffusers_helper.media.video import read_frames
from diffusers_helper.plan import make_plan
from diffusers_helper.vae.codec import decode_to, encode_picture
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
    small_request,
    work_of,
)

LUMA = np.array([0.2126, 0.7152, 0.0722])


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The events of a video of two sections, and the folder with all its files."""
    folder = tmp_path_factory.mktemp("made") / "out"
    request = make_request(seconds=2, steps=2, crf=1, keep_section_videos=True, save_section_stills=True)
    events = run(request, folder, save_latents=True, cache=folder.parent / "cache")
    return list(events), folder


def test_events_tell_the_whole_story(made):
    events, folder = made
    planned, finished = events[0], events[-1]
    assert isinstance(planned, Planned)
    assert (planned.width, planned.height, planned.plan.pixel_frames, planned.seed) == (96, 64, 73, 1)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(e.section, e.step) for e in steps] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all((e.preview.shape, e.preview.dtype) == ((9, 8, 12, 3), np.uint8) for e in steps)
    assert [(e.pixel_frames, e.video) for e in events if isinstance(e, SectionDone)] == [
        (33, None),
        (73, None),
    ]
    stages = [e.stage for e in events if isinstance(e, StageStarted)]
    assert stages == ["prompt", "vision", "images", "transformer"] + ["sampling", "decoding"] * 2 + ["saving"]
    assert isinstance(finished, Finished)
    assert (finished.frames, finished.width, finished.height) == (73, 96, 64)
    sections = [f"a_section_{number:03d}.{ending}" for number in (1, 2) for ending in ("mp4", "png")]
    assert files(folder) == ["a.mp4", "a.png", "a.safetensors", *sections]


def test_section_videos_are_parts_of_the_whole_with_their_stills(made):
    _, folder = made
    whole = list(read_frames(folder / "a.mp4"))
    parts = [list(read_frames(folder / f"a_section_{number:03d}.mp4")) for number in (1, 2)]
    assert [len(part) for part in parts] == [37, 36]
    joined = [frame for part in parts for frame in part]
    assert np.mean(np.abs(np.stack(whole).astype(int) - np.stack(joined))) < 2
    for number, part in enumerate(parts, 1):
        still = np.asarray(Image.open(folder / f"a_section_{number:03d}.png")).astype(int)
        near, far = (np.abs(frame.astype(int) - still).mean() for frame in (part[-1], part[-6]))
        assert near < far / 2


def test_the_video_starts_with_the_start_pictures_latent(made):
    latents = load_latents(made[1] / "a.safetensors")
    with make_loader().vae() as vae:
        assert torch.equal(latents[:, :, :1], encode_picture(read_image(START), vae))
        decoded = torch.stack([*decode_to(iter, latents[:, :, :5], vae, 2**40)])[0].numpy()
    first = next(read_frames(made[1] / "a.mp4")).astype(float)
    assert np.sqrt(np.mean(((first - decoded) @ LUMA) ** 2)) < 3


def test_a_written_file_alone_makes_the_same_video_again(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_picture, "MAX_SIDE", 80)  # some of the pictures are kept with loss
    monkeypatch.setattr(packed_picture, "LOSSLESS_PIXELS", 0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("start.png", "keyframe_00.png"):
        shutil.copy(GOLDEN / "keyframes" / name, photos / name)
    keyframes = [{"section": 0, "image": str(photos / "keyframe_00.png")}, {"section": 1, "prompt": "Jumps."}]
    values = {"start_image": str(photos / "start.png"), "end_image": START, "keyframes": keyframes}
    request = small_request(**values, seconds=1, seed=None, prompt="猫が「歩く」。")
    list(run(request, tmp_path / "first", save_latents=True))
    shutil.rmtree(photos)
    for ending in (".mp4", ".png"):
        again = load_request((tmp_path / "first" / f"a{ending}").rename(tmp_path / f"moved{ending}"))
        list(run(again, tmp_path / ending, save_latents=True))
        assert again.prompt == request.prompt
        first, second = (load_latents(tmp_path / name / "a.safetensors") for name in ("first", ending))
        assert torch.equal(first, second)


@pytest.mark.parametrize("is_embedded", [True, False])
def test_files_hold_the_request_only_if_they_are_to(tmp_path, is_embedded):
    sections = {"keep_section_videos": True, "save_section_stills": True}
    request = small_request(prompt="A secret cat.", seconds=1, **sections, embed_request=is_embedded)
    events, work = run(request, tmp_path / "out", partial_videos=True), work_of(tmp_path / "out")
    next(event for event in events if isinstance(event, SectionDone))
    assert "A secret cat." in (work / "request.json").read_text("utf-8"), "for the next run"
    partial = [path.read_bytes() for path in work.glob("so_far_*.mp4")]
    events.close()
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert sorted(left) == ["a.png", "a_unfinished.mp4"]
    list(run(request, tmp_path / "out"))
    made = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    assert len(made) == 6, "the video, its start picture, and those of the sections"
    assert len(partial) == 1
    for content in (*left.values(), *made):
        assert (b"A secret cat." in content) is (b"teacache" in content) is is_embedded
    assert b"secret" not in partial[0]
    if not is_embedded:
        for name in ("a.mp4", "a.png"):
            with pytest.raises(InputError, match="settings_left_out"):
                load_request(tmp_path / "out" / name)


# -- ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "steps", "sections", "left"),
    [
        (None, 0, 0, []),
        (StepDone, 1, 0, []),
        (SectionDone, 2, 1, ["a.png", "a_unfinished.mp4"]),
    ],
)
def test_a_stop_acts_before_the_next_step_and_keeps_sections(tmp_path, moment, steps, sections, left):
    stop, events = threading.Event(), []
    if moment is None:
        stop.set()
    for event in run(small_request(seconds=1, steps=2), tmp_path / "out", stop=stop):
        events.append(event)
        if moment is not None and isinstance(event, moment):
            stop.set()
    kept = tmp_path / "out" / "a_unfinished.mp4" if sections else None
    assert events[-1] == Stopped(kept, sections, 2)
    assert sum(isinstance(event, StepDone) for event in events) == steps
    assert files(tmp_path / "out") == left
    if kept is not None:
        assert events[-2] == StageStarted("saving")
        assert len(list(read_frames(kept))) == 17


def test_a_stop_in_the_last_step_keeps_all_steps(tmp_path):
    stop, seen, request = threading.Event(), [], small_request(seconds=1, steps=2)
    for event in run(request, tmp_path / "out", stop=stop):
        seen.append(event)
        if isinstance(event, StepDone) and event.step == 2:
            stop.set()
    assert seen[-2:] == [StageStarted("decoding", 0), Stopped(None, 0, 2)]
    again = [event.section for event in run(request, tmp_path / "out") if isinstance(event, StepDone)]
    assert again == [1, 1]


def test_a_stop_that_keeps_nothing_leaves_the_picture_of_a_finished_video(tmp_path):
    (video := tmp_path / "out" / "a.mp4").parent.mkdir()
    video.touch()
    stop = threading.Event()
    for event in run(small_request(seconds=1), video.parent, stop=stop):
        if isinstance(event, StepDone):
            stop.set()
    assert files(video.parent) == ["a.mp4", "a.png"]


def test_a_stop_while_decoding_acts_after_the_window_and_keeps_the_steps(tmp_path, made, monkeypatch):
    original, windows, request = WindowDecoder.forward, [], make_request(seconds=2, steps=2, crf=1)

    def count(decoder, latents):
        windows.append(latents)
        return original(decoder, latents)

    monkeypatch.setattr(WindowDecoder, "forward", count)
    stop, seen = threading.Event(), []
    for event in run(request, tmp_path / "out", stop=stop):
        seen.append(event)
        if isinstance(event, StageProgress) and len(windows) == 5:  # the second section's second window
            stop.set()
    assert seen[-1] == Stopped(tmp_path / "out" / "a_unfinished.mp4", 1, 2)
    assert len(windows) == 5
    again = list(run(request, tmp_path / "out"))
    assert not [event for event in again if isinstance(event, StepDone)]
    first, second = (read_frames(folder / "a.mp4") for folder in (made[1], tmp_path / "out"))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_decoding_reports_each_window_as_soon_as_it_is_decoded(tmp_path, monkeypatch):
    original, windows = WindowDecoder.forward, []

    def count(decoder, latents):
        windows.append(latents)
        return original(decoder, latents)

    monkeypatch.setattr(WindowDecoder, "forward", count)
    reported: list[tuple[int, float]] = []
    for event in run(make_request(seconds=2, steps=2), tmp_path / "out"):
        if event == StageStarted("decoding", 1):
            windows.clear()
            reported.clear()
        if isinstance(event, StageProgress):
            reported.append((len(windows), event.fraction))
    assert reported == [(number, (12 * number + 1) / 73) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("stops", "last", "left"),
    [
        (False, lambda event: isinstance(event, SectionDone), ["a.png", "a_unfinished.mp4"]),
        (True, lambda event: event == StageStarted("saving"), ["a.png", "a_unfinished.mp4"]),
        (False, lambda event: isinstance(event, Finished), ["a.mp4", "a.png"]),
    ],
    ids=["after a section", "during a stop", "at the end"],
)
def test_a_listener_that_leaves_loses_nothing(tmp_path, stops, last, left):
    stop = threading.Event()
    events = run(small_request(seconds=1), tmp_path / "out", stop=stop)
    for event in events:
        if stops and isinstance(event, SectionDone):
            stop.set()
        if last(event):
            events.close()
    assert files(tmp_path / "out") == left


BLACK = {"decoder__conv_out__conv__bias": -9.0, "decoder__conv_out__conv__weight": 0.0}


@pytest.mark.parametrize(
    ("file", "changes", "code"),
    [
        (LAST_SHARD, {"proj_out__bias": float("nan")}, "not_a_number_in_latents"),
        (VAE_FILE, {"decoder__conv_out__conv__bias": float("inf")}, "not_a_number_in_pixels"),
        (VAE_FILE, BLACK, "black_section"),
    ],
)
def test_numbers_that_go_wrong_are_noticed_at_once(tmp_path, file, changes, code):
    loader = make_loader(copy_models(tmp_path / "models", file, **changes))
    with pytest.raises(MachineError) as caught:
        list(run(small_request(steps=2), tmp_path / "out", loader=loader))
    assert caught.value.code == code
    assert caught.value.values.get("step", 1) == 1
    assert "a.mp4" not in files(tmp_path / "out")


def test_a_black_picture_may_become_a_black_video(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    loader = make_loader(copy_models(tmp_path / "models", VAE_FILE, **BLACK))
    request = small_request(start_image=str(tmp_path / "black.png"))
    assert isinstance([*run(request, tmp_path / "out", loader=loader)][-1], Finished)


# -- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("judged", "part"), [("flat", "vae"), ("noise", "transformer"), (None, None)])
def test_a_first_section_that_shows_nothing_is_reported_before_the_next(tmp_path, monkeypatch, judged, part):
    def judge(frames, pictures):
        seen.append((list(frames), list(pictures)))
        return judged

    seen, loader = [], make_loader()
    monkeypatch.setattr("diffusers_helper.pipeline.judge", judge)
    events = list(run(small_request(seconds=1), tmp_path / "out", loader=loader))
    ends = [event for event in events if isinstance(event, Notice | SectionDone)]
    if judged is not None:
        notice = ends.pop(0)
        assert (notice.code, notice.values) == (
            f"video_{judged}",
            {"path": str(getattr(loader.files, part).folder)},
        )
    assert [type(event) for event in ends] == [SectionDone, SectionDone]
    ((frames, pictures),) = seen
    assert len(frames) >= 5
    assert {picture.shape for picture in (*frames, *pictures)} == {(32, 32, 3)}


def test_weights_that_make_one_colour_are_told(tmp_path):
    models = copy_models(tmp_path / "models", VAE_FILE, decoder__conv_out__conv__weight=0.0)
    events = run(small_request(), tmp_path / "out", loader=make_loader(models))
    assert "video_flat" in [event.code for event in events if isinstance(event, Notice)]


def test_the_decoder_is_loaded_once_for_all_sections_of_a_job(tmp_path, monkeypatch):
    """Before the transformer, whose layers stay as far as there is memory then."""
    loaded, loader = [], make_loader()
    for name in ("vae", "transformer"):
        load = getattr(loader, name)

        def record(*given, load=load, **options):
            loaded.append((load.__name__, options))
            return load(*given, **options)

        monkeypatch.setattr(loader, name, record)
    list(run(small_request(seconds=1), tmp_path / "out", loader=loader))
    assert loaded == [("vae", {}), ("vae", {"encodes": False}), ("transformer", {})]


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
    list(run(small_request(), tmp_path / "out"))
    assert asked == [False, False, True]


@pytest.mark.parametrize("section", [0, 1])
def test_out_of_memory_while_decoding_is_retried_without_lost_frames(made, tmp_path, monkeypatch, section):
    original, windows = WindowDecoder.forward, []

    def fail_once(decoder, latents):
        windows.append(latents)
        if len(windows) == (2 if section == 0 else 6):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(decoder, latents)

    monkeypatch.setattr(WindowDecoder, "forward", fail_once)
    monkeypatch.setattr("diffusers_helper.models.vram_budget.plan_vram", lambda *_: [0, 1])
    list(run(make_request(seconds=2, steps=2, crf=1), tmp_path / "out"))
    assert len(windows) == 3 + 6 + (2 if section == 0 else 3)
    first, second = (read_frames(folder / "a.mp4") for folder in (made[1], tmp_path / "out"))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_the_next_run_loads_no_encoder_for_what_it_knows(tmp_path, monkeypatch):
    list(run(small_request(), tmp_path / "out", name="a"))
    loader = make_loader()
    for name in ("text_encoder", "text_encoder_2", "image_encoder"):
        monkeypatch.setattr(loader, name, lambda: pytest.fail("loaded"))
    *_, last = run(small_request(seed=2), tmp_path / "out", name="b", loader=loader)
    assert isinstance(last, Finished)


def test_the_negative_prompt_is_only_encoded_when_it_is_used(tmp_path, monkeypatch):
    encoded, original = [], conditioning.encode_prompts

    def watch(prompts, loader):
        encoded.extend(prompts)
        return original(prompts, loader)

    monkeypatch.setattr(conditioning, "encode_prompts", watch)
    for scale, expected in ((1, ["A cat."]), (2, ["A cat.", "bad"])):
        request = small_request(negative_prompt="bad", guidance_scale=scale)
        list(run(request, tmp_path / "out", cache=tmp_path / "cache"))
        assert encoded == expected


def test_a_prompt_that_is_too_long_is_reported_also_from_the_cache(tmp_path):
    request = small_request(prompt="a cat walks " * 400)
    for _ in range(2):
        events = run(request, tmp_path / "out", cache=tmp_path / "cache")
        notices = [event for event in events if isinstance(event, Notice)]
        assert [notice.code for notice in notices] == ["prompt_too_long"]
        assert notices[0].values["tokens"] > 100


def test_nothing_touches_the_network(tmp_path, monkeypatch):
    refuse = Mock(side_effect=AssertionError("a network access"))
    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    *_, last = run(small_request(), tmp_path / "out", cache=tmp_path / "cache")
    assert isinstance(last, Finished)


def test_pictures_of_other_shapes_take_the_start_pictures_size(tmp_path):
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
    pictures = conditioning.read_pictures(request, make_plan(request))
    assert [picture.shape for picture in pictures.values()] == [(64, 64, 3)] * 3


def test_a_disk_without_room_is_told_before_the_work(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("diffusers_helper.machine_errors.shutil.disk_usage", lambda _: usage)
    with pytest.raises(MachineError) as caught:
        list(run(make_request(), tmp_path / "out"))
    assert caught.value.code == "disk_too_small"
    assert files(tmp_path / "out") == []


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        list(run(make_request(), tmp_path / "file" / "out"))
    assert caught.value.code == "output_not_writable"

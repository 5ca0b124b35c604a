"""A loop ends where it begins: the arithmetic of the seam, and the seam of a whole video."""

import itertools

import numpy as np
import pytest
import torch

from diffusers_helper.events import SectionDone
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.images import read_image
from diffusers_helper.media.loop import LOOP_FADE_FRAMES, fade_length, looped
from diffusers_helper.media.video import read_frames
from tests.support.tiny import START, load_latents, make_request, run

SMALL = {"seconds": 1, "section_seconds": 0.5, "width": 64, "height": 48, "crf": 1}


def source(values):
    """Frames of one pixel with these values, read like those of a job."""

    def read(start, stop):
        for value in values[start:stop]:
            yield np.full((1, 1, 3), value, np.uint8)

    return read


def pixels(frames, start, stop):
    return [int(frame[0, 0, 0]) for frame in frames(start, stop)]


@pytest.mark.parametrize(("count", "length"), [(0, 0), (1, 0), (2, 0), (3, 1), (21, 7), (36, 12), (3600, 12)])
def test_the_dissolve_never_takes_more_than_a_third(count, length):
    assert fade_length(count) == length


def test_the_end_goes_to_the_first_frame_in_equal_steps():
    video = looped(source([200] + [70] * 39), 40)
    assert pixels(video, 0, 40) == [200] + [70] * 27 + [70 + 10 * i for i in range(1, LOOP_FADE_FRAMES + 1)]


def test_an_end_that_is_the_beginning_already_is_not_changed():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    video = looped(lambda start, stop: (picture for _ in range(start, stop)), 50)
    assert all(np.array_equal(frame, picture) for frame in video(0, 50))


def test_any_part_of_a_loop_is_the_same_as_in_the_whole():
    video = looped(source(list(range(0, 250, 10))), 25)
    whole = pixels(video, 0, 25)
    for start in range(25):
        for stop in range(start, 26):
            assert pixels(video, start, stop) == whole[start:stop]


def test_frames_are_read_one_at_a_time():
    read = []

    def frames(start, stop):
        for number in range(start, stop):
            read.append(number)
            yield np.zeros((1, 1, 3), np.uint8)

    video = looped(frames, 100)(0, 100)
    for number in range(88):
        next(video)
        assert read == list(range(number + 1))


# -- whole videos -----------------------------------------------------------------------------------------


def make_video(folder, name, **values):
    """The frames and latents of a video of two sections, 41 frames."""
    request = make_request(**SMALL, **values)
    list(run(request, folder, name=name, save_latents=True))
    frames = np.stack(list(read_frames(folder / f"{name}.mp4"))).astype(int)
    return frames, load_latents(folder / f"{name}.safetensors")


def difference(first, second):
    return np.abs(first - second).mean()


def ordinary_step(frames):
    return float(np.median([difference(a, b) for a, b in itertools.pairwise(frames)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loop") / "out"


@pytest.fixture(scope="module")
def videos(folder):
    """The same video as a loop, and with the same end picture but none of the dissolve."""
    return make_video(folder, "loop", loop=True), make_video(folder, "plain", end_image=START)


def test_the_step_over_the_seam_is_no_larger_than_an_ordinary_one(videos):
    (loop, _), (plain, _) = videos
    assert difference(loop[-1], loop[0]) <= ordinary_step(loop)
    assert difference(plain[-1], plain[0]) > 2 * ordinary_step(plain)


def test_only_the_end_is_changed_and_the_length_stays(videos):
    (loop, _), (plain, _) = videos
    assert len(loop) == len(plain) == 41
    assert difference(loop[:-LOOP_FADE_FRAMES], plain[:-LOOP_FADE_FRAMES]) < 0.5
    assert difference(loop[0], plain[0]) < 0.5
    assert difference(loop[-1], plain[-1]) > 10


def test_a_loops_end_picture_is_its_start_and_the_dissolve_leaves_the_latents_alone(videos):
    (_, loop), (_, plain) = videos
    assert torch.equal(loop, plain)


def test_section_videos_and_stills_show_the_loop(tmp_path):
    request = make_request(**SMALL, loop=True, keep_section_videos=True, save_section_stills=True)
    list(run(request, tmp_path / "out"))
    whole = np.stack(list(read_frames(tmp_path / "out" / "a.mp4"))).astype(int)
    last_part = np.stack(list(read_frames(tmp_path / "out" / "a_section_002.mp4")))
    assert difference(whole[-20:], last_part) < 2
    still = read_image(str(tmp_path / "out" / "a_section_002.png"))
    assert difference(whole[-1], still) < difference(whole[-6], still) / 2


def test_what_is_kept_of_a_stopped_loop_is_not_dissolved(tmp_path):
    events = run(make_request(**SMALL, loop=True), tmp_path / "out")
    next(event for event in events if isinstance(event, SectionDone))
    events.close()
    kept = np.stack(list(read_frames(tmp_path / "out" / "a_unfinished.mp4"))).astype(int)
    assert difference(kept[-1], kept[0]) > 2 * ordinary_step(kept)


@pytest.mark.usefixtures("videos")
@pytest.mark.parametrize("ending", [".mp4", ".png"])
def test_a_loop_comes_back_as_a_loop_from_its_files(folder, ending):
    request = load_request(folder / f"loop{ending}")
    assert request.loop
    assert request.end_image is None

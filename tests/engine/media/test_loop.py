"""A loop ends where it begins: the fade alone, and the seam of a whole video."""

import itertools

import numpy as np
import pytest
import torch

from diffusers_helper.events import SectionDone
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
def test_the_fade_never_takes_more_than_a_third(count, length):
    assert fade_length(count) == length


def test_the_end_fades_to_the_first_frame_in_equal_steps():
    video = looped(source([200] + [70] * 39), 40)
    assert pixels(video, 0, 40) == [200] + [70] * 27 + [70 + 10 * i for i in range(1, LOOP_FADE_FRAMES + 1)]


def test_any_part_of_a_loop_equals_that_part_of_the_whole():
    video = looped(source(list(range(0, 250, 10))), 25)
    whole = pixels(video, 0, 25)
    for start, stop in itertools.combinations_with_replacement(range(26), 2):
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
def videos(tmp_path_factory):
    """The same video as a loop, and with the same end picture but no fade."""
    folder = tmp_path_factory.mktemp("loop") / "out"
    return make_video(folder, "loop", loop=True), make_video(folder, "plain", end_image=START)


def test_the_step_over_the_seam_is_no_larger_than_an_ordinary_one(videos):
    (loop, _), (plain, _) = videos
    assert difference(loop[-1], loop[0]) <= ordinary_step(loop)
    assert difference(plain[-1], plain[0]) > 2 * ordinary_step(plain)


def test_only_the_last_frames_of_a_loop_are_changed(videos):
    (loop, loop_latents), (plain, plain_latents) = videos
    assert len(loop) == len(plain) == 41
    assert difference(loop[:-LOOP_FADE_FRAMES], plain[:-LOOP_FADE_FRAMES]) < 0.5
    assert difference(loop[-1], plain[-1]) > 10
    assert torch.equal(loop_latents, plain_latents)


def test_section_videos_and_stills_show_the_loop(tmp_path):
    request = make_request(**SMALL, loop=True, keep_section_videos=True, save_section_stills=True)
    list(run(request, tmp_path / "out"))
    whole = np.stack(list(read_frames(tmp_path / "out" / "a.mp4"))).astype(int)
    last_part = np.stack(list(read_frames(tmp_path / "out" / "a_section_002.mp4")))
    assert difference(whole[-20:], last_part) < 2
    still = read_image(str(tmp_path / "out" / "a_section_002.png"))
    assert difference(whole[-1], still) < difference(whole[-6], still) / 2


def test_the_unfinished_video_of_a_loop_does_not_fade(tmp_path):
    events = run(make_request(**SMALL, loop=True), tmp_path / "out")
    next(event for event in events if isinstance(event, SectionDone))
    events.close()
    kept = np.stack(list(read_frames(tmp_path / "out" / "a_unfinished.mp4"))).astype(int)
    assert difference(kept[-1], kept[0]) > 2 * ordinary_step(kept)

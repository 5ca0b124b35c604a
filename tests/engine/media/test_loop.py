"""A loop ends where it begins: the fade alone, and the seam of a whole video."""

import itertools

import numpy as np
import pytest
import torch

from diffusers_helper.events import SectionDone
from diffusers_helper.media.images import read_image
from diffusers_helper.media.loop import LOOP_FADE_FRAMES, looped
from diffusers_helper.media.video import read_frames
from tests.support.tiny import START, load_latents, run, small_request


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
    video = looped(source([200] + [70] * (count - 1)), count)
    assert sum(value not in (200, 70) for value in pixels(video, 0, count)) == length


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

SMALL = {"seconds": 1, "width": 64, "height": 48, "crf": 1}
"""A video of two sections, 41 frames."""


def frames_of(path):
    return np.stack(list(read_frames(path))).astype(int)


def difference(first, second):
    return np.abs(first - second).mean()


def ordinary_step(frames):
    return float(np.median([difference(a, b) for a, b in itertools.pairwise(frames)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same video as a loop, with its sections, and with the same end picture but no fade."""
    folder = tmp_path_factory.mktemp("loop") / "out"
    loop = {"loop": True, "keep_section_videos": True, "save_section_stills": True}
    for name, values in (("loop", loop), ("plain", {"end_image": START})):
        list(run(small_request(**SMALL | values), folder, name=name, save_latents=True))
    return folder


def test_only_the_seam_of_a_loop_differs_and_is_an_ordinary_step(folder):
    loop, plain = (frames_of(folder / f"{name}.mp4") for name in ("loop", "plain"))
    assert len(loop) == len(plain) == 41
    assert difference(loop[-1], loop[0]) <= ordinary_step(loop)
    assert difference(plain[-1], plain[0]) > 2 * ordinary_step(plain)
    assert difference(loop[:-LOOP_FADE_FRAMES], plain[:-LOOP_FADE_FRAMES]) < 0.5
    assert difference(loop[-1], plain[-1]) > 10
    loop_latents, plain_latents = (load_latents(folder / f"{name}.safetensors") for name in ("loop", "plain"))
    assert torch.equal(loop_latents, plain_latents)


def test_section_videos_and_stills_show_the_loop(folder):
    whole = frames_of(folder / "loop.mp4")
    assert difference(whole[-20:], frames_of(folder / "loop_section_002.mp4")) < 2
    still = read_image(str(folder / "loop_section_002.png"))
    assert difference(whole[-1], still) < difference(whole[-6], still) / 2


def test_the_unfinished_video_of_a_loop_does_not_fade(tmp_path):
    events = run(small_request(**SMALL, loop=True), tmp_path / "out")
    next(event for event in events if isinstance(event, SectionDone))
    events.close()
    kept = frames_of(tmp_path / "out" / "a_unfinished.mp4")
    assert difference(kept[-1], kept[0]) > 2 * ordinary_step(kept)

"""Lengths, paddings, positions: every number of a plan."""

import json
from pathlib import Path

import pytest

from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from diffusers_helper.sections import (
    SectionSize,
    count_sections,
    pixel_frames,
    section_paddings,
    tile_starts,
)

GOLDEN = Path(__file__).parents[1] / "golden"
ONE, HALF = SectionSize.ONE_SECOND, SectionSize.HALF_SECOND


def request(**values):
    return GenerationRequest.from_dict({"start_image": "a.png", **values})


@pytest.mark.parametrize(
    ("seconds", "size", "sections"),
    [
        (1, ONE, 1), (2, ONE, 2), (4, ONE, 3), (6, ONE, 5), (8, ONE, 7), (16, ONE, 13), (120, ONE, 100),
        (0.1, ONE, 1), (1.8, ONE, 2), (3, ONE, 2), (1, HALF, 2), (0.5, HALF, 1), (120, HALF, 200),
    ],
)  # fmt: skip
def test_seconds_become_sections_by_the_one_formula(seconds, size, sections):
    assert count_sections(seconds, size) == sections


@pytest.mark.parametrize(
    ("sections", "all_padding", "paddings"),
    [
        (1, None, (0,)),
        (3, None, (2, 1, 0)),
        (4, None, (3, 2, 1, 0)),
        (5, None, (3, 2, 2, 1, 0)),
        (7, None, (3, 2, 2, 2, 2, 1, 0)),
        (3, 0.5, (0.5, 0.5, 0)),
        (1, 3.0, (0,)),
        (6, 0.0, (0, 0, 0, 0, 0, 0)),
    ],
)
def test_paddings(sections, all_padding, paddings):
    assert section_paddings(sections, all_padding) == paddings


def test_section_sizes_agree_with_each_other():
    assert (ONE.latent_frames, ONE.overlap_frames) == (9, 33)
    assert (HALF.latent_frames, HALF.overlap_frames) == (5, 17)


@pytest.mark.parametrize("case", sorted(path.parent.name for path in GOLDEN.glob("*/expected.json")))
def test_plan_equals_the_reference(case):
    values = json.loads((GOLDEN / case / "request.json").read_text())
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    plan = make_plan(GenerationRequest.from_dict(values))
    assert len(plan.sections) == expected["sections"]
    assert plan.pixel_frames == expected["num_pixel_frames"]
    for section, indices in zip(plan.sections, expected["indices"], strict=True):
        assert list(section.positions.latents) == indices["latent_indices"]
        assert list(section.positions.clean) == indices["clean_latent_indices"]
        assert list(section.positions.history_2x) == indices["clean_latent_2x_indices"]
        assert list(section.positions.history_4x) == indices["clean_latent_4x_indices"]


def test_a_section_takes_the_nearest_keyframe_before_it_in_the_video():
    keyframes = [{"section": 1, "image": "b.png"}, {"section": 3, "image": "c.png"}]
    plan = make_plan(request(seconds=6, keyframes=keyframes))
    assert [section.picture for section in plan.sections] == ["b.png", "b.png", "c.png", "c.png", plan.start]


def test_without_a_start_image_the_last_keyframe_is_the_start():
    keyframes = [{"section": 1, "image": "b.png"}, {"section": 0, "image": "c.png"}]
    without = request(seconds=2, keyframes=keyframes, start_image=None)
    assert make_plan(without) == make_plan(request(seconds=2, keyframes=keyframes, start_image="b.png"))


def test_a_blank_prompt_of_a_section_means_the_main_prompt():
    keyframes = [{"section": 0, "prompt": "jumps"}, {"section": 1, "image": "b.png", "prompt": "  "}]
    plan = make_plan(request(seconds=4, prompt="walks", keyframes=keyframes))
    assert [section.prompt for section in plan.sections] == ["jumps", "walks", "walks"]


ALONE, SHORT, LONG = (0,), (0, 3), (0, 3, 6)
LAST = (0, 3, 6, 9, 12, 15)
DECODED = [
    (ONE, 1, [10], [LONG]),
    (ONE, 2, [9, 19], [LONG, LAST]),
    (ONE, 4.8, [9, 11, 11, 19], [LONG, LONG, LONG, LAST]),
    (HALF, 0.5, [6], [SHORT]),
    (HALF, 1, [5, 8], [SHORT, SHORT]),
    (HALF, 2, [5, 10, 8], [SHORT, LONG, SHORT]),
]


@pytest.mark.parametrize(("size", "seconds", "frames", "tiles"), DECODED)
def test_decoding_reaches_only_as_far_back_as_upstreams_pixels_need(size, seconds, frames, tiles):
    plan = make_plan(request(seconds=seconds, section_seconds=size.value))
    assert [section.decoded_latent_frames for section in plan.sections] == frames
    assert [section.decoded_tiles for section in plan.sections] == tiles
    assert plan.decoded_frames == sum(map(pixel_frames, frames))


@pytest.mark.parametrize(
    ("latent_frames", "starts"),
    [(1, ALONE), (2, ALONE), (4, ALONE), (5, SHORT), (7, SHORT), (8, LONG), (10, LONG), (19, LAST)],
)
def test_a_tile_begins_every_third_latent_frame_if_it_adds_any(latent_frames, starts):
    assert tile_starts(latent_frames) == starts


IN_STEP = [1, 31 / 32, 30 / 32 * 3 / 4, 29 / 32 / 2, 28 / 32 / 4]
IN_STEP_HALF = [1, 15 / 16, 14 / 16 * 3 / 4, 13 / 16 / 2, 12 / 16 / 4]
FADE, FADE_HALF = [1 - step / 32 for step in range(33)], [1 - step / 16 for step in range(17)]


@pytest.mark.parametrize(
    ("size", "seconds", "weights"),
    [
        (ONE, 1, [[]]),
        (ONE, 2, [[], FADE]),
        (ONE, 4.8, [[], IN_STEP, IN_STEP, FADE]),
        (HALF, 1, [[], IN_STEP_HALF]),
        (HALF, 2, [[], FADE_HALF, IN_STEP_HALF]),
    ],
)
def test_join_weights_are_the_fade_times_the_blend_of_tiles_in_step(size, seconds, weights):
    plan = make_plan(request(seconds=seconds, section_seconds=size.value))
    assert [list(section.join_weights) for section in plan.sections] == weights


@pytest.mark.parametrize(
    ("values", "picture"),
    [
        ({}, None),
        ({"end_image": "b.png"}, "b.png"),
        ({"loop": True}, "a.png"),
        ({"loop": True, "end_image": "b.png"}, "b.png"),
        ({"loop": True, "start_image": None, "keyframes": [{"section": 0, "image": "c.png"}]}, "c.png"),
    ],
)
def test_a_loop_ends_with_its_start_unless_it_is_given_another_end(values, picture):
    assert request(**values).end_picture == picture

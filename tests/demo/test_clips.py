"""The clips that the demo's models learn from: what moves, which way, and how it is said."""

import random
from functools import cache

import numpy as np
import pytest
import torch

from demo_models.judging.motion import camera_kind, measure_camera, phase_shift
from demo_models.judging.pictures import as_frames
from demo_models.train.canvas import draw_canvases
from demo_models.train.clips import (
    MOTION_SECONDS,
    PAN_PIXELS,
    SLOW,
    SUBJECT_PIXELS,
    ClipSize,
    Motions,
    draw_clips,
    draw_motions,
    draw_views,
    make_scene,
    progress,
    render,
)
from demo_models.train.seeds import Dice
from demo_models.train.text import label_of
from demo_models.train.wording import KINDS, PHRASES, compose

CPU = torch.device("cpu")
SIDE = 64
SIZE = ClipSize(9, SIDE, SIDE, unit=0.4)


@cache
def canvases() -> torch.Tensor:
    return draw_canvases(Dice(CPU, 3, "canvases"), 2, SIZE.canvas_side)


def show(kind: str, times: list[int], speed: float = 1.0) -> np.ndarray:
    """Frames `(t, h, w, 3)` of one clip of a kind."""
    dice = Dice(CPU, 3, kind)
    motions = Motions(torch.tensor([KINDS.index(kind)] * 2), torch.full((2,), speed))
    scene = make_scene(dice, canvases(), SIZE, motions)
    return as_frames(render(scene, SIZE, torch.tensor(times))[0].transpose(0, 1))


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [("pan_left", (1, 0)), ("pan_right", (-1, 0)), ("pan_up", (0, 1)), ("pan_down", (0, -1))],
)
def test_the_pixels_move_against_the_camera(kind, pixels):
    x, y, _ = phase_shift(*show(kind, [0, 20]))
    gone = PAN_PIXELS * SIZE.unit * float(progress(torch.tensor(20 / 30)))
    assert (x, y) == pytest.approx((gone * pixels[0], gone * pixels[1]), abs=1.0)


def test_slow_motion_covers_half_the_distance():
    fast, slow = (phase_shift(*show("pan_left", [0, 20], speed))[0] for speed in (1.0, SLOW))
    assert slow == pytest.approx(SLOW * fast, abs=1.0)


@pytest.mark.parametrize("kind", ["subject_right", "subject_left"])
def test_a_subject_moves_before_a_still_background(kind):
    before, after = show(kind, [0, 120]).astype(float)
    changed = np.abs(after - before).mean(2)
    assert changed[0].max() < 3, "above it nothing moves"
    columns = np.flatnonzero(changed.max(0) > 12)
    assert np.ptp(columns) >= 0.8 * SUBJECT_PIXELS * SIZE.unit
    assert camera_kind(measure_camera([before[..., 0], after[..., 0]]), SIDE, SIDE) == "still"


def test_nothing_moves_after_the_motions_end():
    end = int(MOTION_SECONDS * 30)
    assert np.array_equal(*show("zoom_in", [end, end + 12]))
    assert not np.array_equal(*show("zoom_in", [0, 12]))


def test_motion_is_fastest_at_first():
    steps = progress(torch.linspace(0, MOTION_SECONDS, 9)).diff()
    assert (steps.diff() < 0).all()
    assert progress(torch.tensor([0.0, MOTION_SECONDS, 99.0])).tolist() == [0, 1, 1]


def test_the_same_seed_draws_the_same_clips():
    first, motions = draw_clips(Dice(CPU, 1, "x"), 2, SIZE)
    again, _ = draw_clips(Dice(CPU, 1, "x"), 2, SIZE)
    other, _ = draw_clips(Dice(CPU, 2, "x"), 2, SIZE)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 3, 9, SIDE, SIDE)
    assert first.abs().max() <= 1
    assert len(motions.kinds) == 2


def test_pictures_have_detail_everywhere():
    dice = Dice(CPU, 0, "views")
    views = draw_views(dice, draw_canvases(dice, 4, 128), 6, 48, 64)
    assert views.shape == (6, 3, 48, 64)
    assert views.isfinite().all()
    assert (views.std((1, 2, 3)) > 0.02).all()


def test_every_kind_is_drawn():
    motions = draw_motions(Dice(CPU, 0, "many"), 2000)
    counts = torch.bincount(motions.kinds, minlength=len(KINDS))
    assert counts.min() > 40
    assert 200 < int((motions.speeds < 1).sum()) < 400


def test_each_kind_has_words_of_its_own():
    for kind, phrases in PHRASES.items():
        others = {phrase for other, known in PHRASES.items() if other != kind for phrase in known}
        assert not others & set(phrases), kind
        verb, _, direction = kind.partition("_")
        if verb in ("pan", "subject"):
            assert all(direction in phrase.split() for phrase in phrases)
    rng = random.Random(0)
    prompts = [compose(kind, slow, rng) for kind in KINDS for slow in (False, True)]
    assert all("{" not in prompt for prompt in prompts)
    assert any(word in prompt.lower() for prompt in prompts[1::2] for word in ("slowly", "gently"))
    assert len({label_of(kind, slow) for kind in range(len(KINDS)) for slow in (False, True)}) == len(prompts)

"""The judge's measures, on videos whose motion is known."""

import json

import numpy as np
import pytest
import torch

from demo_models.judge import Row, table
from demo_models.judging.measure import largest_jump, measure_drift, psnr, video_psnr
from demo_models.judging.motion import (
    block_shifts,
    camera_kind,
    measure_camera,
    measure_subject,
    subject_kind,
)
from demo_models.judging.pictures import as_frames
from demo_models.train.clips import ClipSize, Motions, draw_canvases, make_scene, render
from demo_models.train.seeds import Dice
from demo_models.train.wording import KINDS, PANS, SUBJECTS, TURNS, ZOOMS

SIDE = 96
TIMES = torch.arange(0, 61)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}


@pytest.fixture(scope="module")
def videos() -> dict[str, np.ndarray]:
    """Two seconds of every kind of motion over one canvas each, `(frames, h, w, 3)`."""
    size = ClipSize(len(TIMES), SIDE, SIDE, unit=0.5)
    dice = Dice(torch.device("cpu"), 5, "known motion")
    canvases = draw_canvases(dice, len(KINDS), size.canvas_side)
    motions = Motions(torch.arange(len(KINDS)), torch.ones(len(KINDS)))
    clips = render(make_scene(dice, canvases, size, motions), size, TIMES)
    return {kind: as_frames(clip.transpose(0, 1)) for kind, clip in zip(KINDS, clips, strict=True)}


@pytest.mark.parametrize("kind", [*PANS, *ZOOMS, *TURNS])
def test_a_camera_move_is_recognized_and_backwards_it_is_the_opposite(kind, videos):
    verb, _, direction = kind.partition("_")
    forwards, backwards = (measure_camera(video) for video in (videos[kind], videos[kind][::-1]))
    assert camera_kind(forwards, SIDE, SIDE) == kind
    assert camera_kind(backwards, SIDE, SIDE) == f"{verb}_{OPPOSITE[direction]}"


@pytest.mark.parametrize("kind", [*SUBJECTS, "still"])
def test_a_subject_that_moves_is_no_camera_move(kind, videos):
    assert camera_kind(measure_camera(videos[kind]), SIDE, SIDE) == "still"
    assert subject_kind(measure_subject(videos[kind])) == kind


def test_blocks_are_found_where_they_went():
    picture = np.random.default_rng(0).uniform(0, 255, (72, 96)).astype(np.float32)
    _, shifts, _, gains = block_shifts(picture, np.roll(picture, (3, -2), (0, 1)))
    inner = shifts.reshape(3, 4, 2)[1, 1:3]
    assert np.abs(inner - (-2, 3)).max() < 0.5
    assert gains.min() > 0


def test_a_jump_is_found_where_it_is(videos):
    smooth = videos["pan_left"][:40]
    broken = np.concatenate([smooth[:20], smooth[28:]])
    assert largest_jump(smooth)[0] < 2
    ratio, frame = largest_jump(broken)
    assert ratio > 3
    assert frame == 20


def test_drift_names_what_drifts(videos):
    still = videos["still"]
    assert measure_drift(still).colour < 1
    weights = np.linspace(1, 0.5, len(still))[:, None, None, None]
    faded = (127 + weights * (still - 127.0)).clip(0, 255).astype(np.uint8)
    drift = measure_drift(faded)
    assert drift.contrast == pytest.approx(0.5, abs=0.05)
    assert drift.sharpness == pytest.approx(0.5, abs=0.1)
    light = np.linspace(0, 40, len(still), dtype=int)[:, None, None, None]
    brighter = (still[:1].astype(int) + light).clip(0, 255).astype(np.uint8)
    assert measure_drift(brighter).colour > 20


def test_psnr():
    a = np.zeros((4, 4, 3), np.uint8)
    assert psnr(a, a) == 99
    assert psnr(a, a + 25) == pytest.approx(20.17, abs=0.01)
    assert video_psnr([a, a], [a, a + 25]) == pytest.approx(23.18, abs=0.01)


def test_the_table_says_what_is_not_met():
    rows = [Row("a", "1", "2", False, {"x": 1.0}), Row("b", "3", "", None), Row("c", "4", "4", True)]
    assert json.dumps([row.__dict__ for row in rows]), "details can be written"
    assert table(rows).splitlines()[2:] == [
        "| a | 1 | 2 | **no** |",
        "| b | 3 |  |  |",
        "| c | 4 | 4 | yes |",
    ]

"""Measures of a video's look: nearness to a picture, jumps, drift. Frames are `(h, w, 3)` uint8."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = 255.0
NEIGHBOURS = 6
"""Frames to each side that a step between two frames is compared with."""
SMALLEST_STEP = 0.75
"""Levels by which two frames may always differ."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; 99 for equal pictures."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error < 1e-9 else min(99.0, 10 * float(np.log10(LEVELS**2 / error)))


def video_psnr(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Peak signal-to-noise ratio in dB over the pixels of all frames."""
    return psnr(np.stack(list(a)), np.stack(list(b)))


def largest_jump(frames: Sequence[np.ndarray]) -> tuple[float, int]:
    """The step from one frame to the next that is largest against those around it: how many times as large as
    their median, and the number of the frame behind it."""
    steps = [
        float(np.abs(after.astype(np.float32) - before).mean())
        for before, after in itertools.pairwise(frames)
    ]
    ratios = []
    for place, step in enumerate(steps):
        around = steps[max(0, place - NEIGHBOURS) : place] + steps[place + 1 : place + 1 + NEIGHBOURS]
        usual = float(np.median(around)) if around else step
        ratios.append(step / max(usual, SMALLEST_STEP))
    worst = int(np.argmax(ratios))
    return ratios[worst], worst + 1


@dataclass(frozen=True)
class Drift:
    """The largest drift of a video's look from its first frame, among its seconds.

    `colour` is the distance of the mean colours in levels, `contrast` and `sharpness` the ratios of
    deviation and of edges to the first frame's that are farthest from 1.
    """

    colour: float
    contrast: float
    sharpness: float


def measure_drift(frames: Sequence[np.ndarray], rate: int = 30) -> Drift:
    first, *later = [_look(frame) for frame in (*frames[:1], *frames[rate::rate], frames[-1])]
    colour = max(float(np.abs(look[0] - first[0]).max()) for look in later)
    contrast, sharpness = (
        max((float(look[place] / max(first[place], 1e-6)) for look in later), key=_distance_from_one)
        for place in (1, 2)
    )
    return Drift(colour, contrast, sharpness)


def _look(frame: np.ndarray) -> tuple[np.ndarray, float, float]:
    values = frame.astype(np.float32)
    edges = np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()
    return values.mean((0, 1)), float(values.std()), float(edges)


def _distance_from_one(ratio: float) -> float:
    return abs(float(np.log(max(ratio, 1e-6))))

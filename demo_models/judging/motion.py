"""The motion of a video, by block matching and a fit, and of whole pictures by phase correlation.

Shifts are in pixels, x to the right and y down, of what is seen: a camera that pans left makes everything
move right. Frames are `(height, width, 3)` uint8 or grey `(height, width)` floats.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EVERY = 4
"""Motion is measured from each fourth frame to the next."""
BLOCK, REACH = 24, 8
"""Pixels of a block's side, and how far it is searched for."""
STILL = 6.0
"""Pixels in all below which nothing moves."""
SUBJECT_STEP = 1.5
"""Pixels that a block of a moving subject moves at least between two frames that are compared."""
ROUNDS = 6
"""Rounds of the robust fit."""


@dataclass(frozen=True)
class Motion:
    """A motion: a shift `(x, y)`, growth as a logarithm, a turn in radians, counter-clockwise as seen."""

    x: float = 0.0
    y: float = 0.0
    growth: float = 0.0
    turn: float = 0.0

    def __add__(self, other: "Motion") -> "Motion":
        return Motion(self.x + other.x, self.y + other.y, self.growth + other.growth, self.turn + other.turn)


def camera_kind(motion: Motion, height: int, width: int) -> str:
    """The kind of camera move (a name as in `wording.KINDS`) that a motion is most of all."""
    radius = 0.4 * min(height, width)
    sizes = {
        ("pan_left", "pan_right"): motion.x,
        ("pan_up", "pan_down"): motion.y,
        ("zoom_in", "zoom_out"): motion.growth * radius,
        ("turn_left", "turn_right"): motion.turn * radius,
    }
    (positive, negative), size = max(sizes.items(), key=lambda item: abs(item[1]))
    if abs(size) < STILL:
        return "still"
    return positive if size > 0 else negative


def subject_kind(shift: tuple[float, float]) -> str:
    """The kind of subject's move that a shift is."""
    x, y = shift
    if max(abs(x), abs(y)) < STILL:
        return "still"
    if abs(x) >= abs(y):
        return "subject_right" if x > 0 else "subject_left"
    return "subject_down" if y > 0 else "subject_up"


def measure_camera(frames: Sequence[np.ndarray]) -> Motion:
    """The motion of the whole picture from the first frame to the last."""
    total = Motion()
    for before, after in _pairs(frames):
        total += fit_motion(*block_shifts(before, after)[:3])
    return total


def measure_subject(frames: Sequence[np.ndarray]) -> tuple[float, float]:
    """The shift of what moves before a background that stands still."""
    total = np.zeros(2)
    for before, after in _pairs(frames):
        _, shifts, _, gains = block_shifts(before, after)
        moves = np.abs(shifts).max(1) >= SUBJECT_STEP
        if gains[moves].sum() > 0:
            total += np.average(shifts[moves], axis=0, weights=gains[moves] + 1e-9)
    return float(total[0]), float(total[1])


def fit_motion(places: np.ndarray, shifts: np.ndarray, weights: np.ndarray) -> Motion:
    """The similarity that explains most of the shifts at some places: least squares, outliers weighted down.

    A shift at `(x, y)` is `(tx + g x + r y, ty + g y - r x)` for growth g and a counter-clockwise turn r.
    """
    x, y = places.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = np.concatenate([np.stack([one, zero, x, y], 1), np.stack([zero, one, y, -x], 1)])
    wanted = np.concatenate([shifts[:, 0], shifts[:, 1]])
    trust = np.concatenate([weights, weights])
    found = np.zeros(4)
    for _ in range(ROUNDS):
        root = np.sqrt(trust)[:, None]
        found = np.linalg.lstsq(rows * root, wanted * root[:, 0], rcond=None)[0]
        error = (rows @ found - wanted).reshape(2, -1)
        outlying = 1 / (1 + (np.hypot(*error) / 1.0) ** 2)
        trust = np.concatenate([weights * outlying] * 2)
    return Motion(float(found[0]), float(found[1]), float(np.log1p(max(found[2], -0.5))), float(found[3]))


def block_shifts(
    before: np.ndarray, after: np.ndarray, block: int = BLOCK, reach: int = REACH
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the shift of each block of a picture.

    Returns:
        Positions of the blocks from the picture's centre `(n, 2)`, their shifts `(n, 2)`, how sure these are
        `(n,)`, and how much better than no shift they explain the picture `(n,)`, in levels.
    """
    height, width = before.shape
    padded = np.pad(after, reach, mode="edge")
    steps = range(-reach, reach + 1)
    costs = np.stack(
        [
            [
                _block_means(np.abs(before - _shifted(padded, dx, dy, reach, before.shape)), block)
                for dx in steps
            ]
            for dy in steps
        ]
    )  # (steps y, steps x, rows, columns)
    rows, columns = costs.shape[2:]
    flat = costs.reshape(len(steps) ** 2, -1)
    flat = flat + 0.02 * np.hypot(*np.meshgrid(steps, steps)).reshape(-1, 1)  # of equals the nearest
    best, still = flat.argmin(0), flat[len(flat) // 2]
    lowest = flat.min(0)
    shifts = np.stack([_refined(flat, best, len(steps), axis) for axis in (0, 1)], 1)
    sure = (np.median(flat, axis=0) - lowest) / (lowest + 2.0)
    y, x = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([(x + 0.5) * block - width / 2, (y + 0.5) * block - height / 2], 1)
    return places, shifts, np.clip(sure, 0, 4) ** 2 + 1e-6, still - lowest


def phase_shift(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """The shift `(x, y)` of a whole picture by phase correlation, and how high its peak is (1: nothing
    else)."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    spectra = [np.fft.fft2((picture - picture.mean()) * window) for picture in (grey(before), grey(after))]
    product = spectra[1] * spectra[0].conj()
    surface = np.fft.ifft2(product / np.maximum(np.abs(product), 1e-9)).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    y, x = (int(p) if p <= size // 2 else int(p) - size for p, size in zip(peak, surface.shape, strict=True))
    return float(x), float(y), float(surface.max())


def grey(frame: np.ndarray) -> np.ndarray:
    """Brightness 0..255 as floats."""
    values = frame.astype(np.float32)
    return values if values.ndim == 2 else values @ np.array([0.299, 0.587, 0.114], np.float32)


def _pairs(frames: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    chosen = [grey(frame) for frame in frames[::EVERY]]
    return list(itertools.pairwise(chosen))


def _shifted(padded: np.ndarray, dx: int, dy: int, reach: int, shape: tuple[int, ...]) -> np.ndarray:
    return padded[reach + dy : reach + dy + shape[0], reach + dx : reach + dx + shape[1]]


def _block_means(values: np.ndarray, block: int) -> np.ndarray:
    rows, columns = values.shape[0] // block, values.shape[1] // block
    cut = values[: rows * block, : columns * block]
    return cut.reshape(rows, block, columns, block).mean((1, 3))


def _refined(flat: np.ndarray, best: np.ndarray, count: int, axis: int) -> np.ndarray:
    """The best shifts along one axis (0: x), between the steps by a parabola."""
    place = best % count if axis == 0 else best // count
    stride = 1 if axis == 0 else count
    inside = (place > 0) & (place < count - 1)
    number = np.arange(flat.shape[1])
    at = np.where(inside, best, len(flat) // 2)
    low, mid, high = (flat[at + offset, number] for offset in (-stride, 0, stride))
    bend = low - 2 * mid + high
    fine = np.where(inside & (bend > 1e-6), 0.5 * (low - high) / np.maximum(bend, 1e-6), 0.0)
    return place - count // 2 + np.clip(fine, -0.5, 0.5)

"""Clips that are drawn: a camera that moves over a canvas, or a subject that moves before it.

Which way pixels move for which words stands in `wording`. Everything happens within `MOTION_SECONDS` and gets
slower towards the end ("ease out"), so that the place of a frame in time says how far things have moved;
afterwards nothing moves. Lengths are in pixels of the video, whatever its size.

Clips are `(batch, 3, frames, height, width)` in -1..1, frames 1 + 4k. The same dice give the same clips.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from diffusers_helper.sections import FPS

from .canvas import draw_canvases
from .seeds import Dice
from .wording import KINDS, WEIGHTS

MOTION_SECONDS = 4.0
PAN_PIXELS = 72.0
"""Pixels that a pan covers in all."""
SUBJECT_PIXELS = 84.0
ZOOM = 1.6
"""The factor by which things grow (or shrink) in a zoom."""
TURN_DEGREES = 24.0
SLOW = 0.5
SLOW_PART = 0.15
"""The part of the clips that are slow, and how far they come."""
OVERSIZE = 2.7
"""The side of a canvas for views of a side of 1: room for a pan, a zoom out and the corners of a turn."""
FINENESS = 1.2
"""Pixels of the canvas to a pixel of the view before a zoom."""
FRAMES_AT_ONCE = 16
"""Frames that are rendered at once, to bound the memory."""


@dataclass(frozen=True)
class ClipSize:
    """The size of a clip in pixels. `unit` scales all motion: 1 for the demo's own sizes, less for toys."""

    frames: int
    height: int
    width: int
    unit: float = 1.0

    @property
    def canvas_side(self) -> int:
        """Enough canvas around the view, a multiple of 32."""
        return math.ceil(OVERSIZE * math.sqrt(self.height * self.width) / 32) * 32


@dataclass(frozen=True)
class Motions:
    """The motions of a batch of clips: each a kind, a number in `KINDS`, and a speed, 1 or SLOW."""

    kinds: torch.Tensor
    speeds: torch.Tensor

    def is_kind(self, name: str) -> torch.Tensor:
        """1.0 for each clip of this kind, else 0.0."""
        return (self.kinds == KINDS.index(name)).float()

    def is_slow(self, number: int) -> bool:
        return bool(self.speeds[number] < 1)

    def kind(self, number: int) -> str:
        return KINDS[int(self.kinds[number])]


def draw_motions(dice: Dice, count: int) -> Motions:
    """Kinds as often as `WEIGHTS` says."""
    bounds = torch.tensor(WEIGHTS, device=dice.device).cumsum(0) / sum(WEIGHTS)
    kinds = torch.searchsorted(bounds, dice.uniform(count).clamp(max=0.9999))
    speeds = torch.where(dice.chance(SLOW_PART, count), SLOW, 1.0)
    return Motions(kinds, speeds)


def progress(seconds: torch.Tensor) -> torch.Tensor:
    """The part of a motion that is done, 0 to 1: fast at first, then slower, done after MOTION_SECONDS."""
    left = (1 - seconds / MOTION_SECONDS).clamp(0, 1)
    return 1 - left**2


@dataclass(frozen=True)
class Scene:
    """All that a batch of clips shows: canvases, what moves, and the subject that stands before them."""

    canvases: torch.Tensor
    motions: Motions
    subject: "Subject"


@dataclass(frozen=True)
class Subject:
    """Something that moves: where it starts `(batch, 2)` (x, y), its half size, its shape, its texture.

    `power` is 2 for an ellipse and 8 for a box; `offset` `(batch, 2)` is where its texture lies in another
    canvas; `tint` `(batch, 3)` its colour; `present` is 1 where there is one.
    """

    start: torch.Tensor
    size: torch.Tensor
    power: torch.Tensor
    offset: torch.Tensor
    tint: torch.Tensor
    present: torch.Tensor


def draw_scene(dice: Dice, count: int, size: ClipSize) -> Scene:
    """New canvases, and what happens before them."""
    return make_scene(dice, draw_canvases(dice, count, size.canvas_side), size)


def make_scene(dice: Dice, canvases: torch.Tensor, size: ClipSize, motions: Motions | None = None) -> Scene:
    """Draw a scene before given canvases, with random motions unless `motions` gives them."""
    if motions is None:
        motions = draw_motions(dice, len(canvases))
    return Scene(canvases, motions, _draw_subject(dice, motions, size))


def render(scene: Scene, size: ClipSize, times: torch.Tensor | None = None) -> torch.Tensor:
    """The frames at `times` (in frames from the start; all of them by default) of each clip."""
    if times is None:
        times = torch.arange(size.frames, device=scene.canvases.device)
    parts = [_render_some(scene, size, part / FPS) for part in times.float().split(FRAMES_AT_ONCE)]
    return torch.cat(parts, dim=2)


def draw_clips(dice: Dice, count: int, size: ClipSize) -> tuple[torch.Tensor, Motions]:
    """Clips of new scenes, and what happens in each."""
    scene = draw_scene(dice, count, size)
    return render(scene, size), scene.motions


def draw_views(dice: Dice, canvases: torch.Tensor, count: int, height: int, width: int) -> torch.Tensor:
    """Still pictures `(count, 3, height, width)`: views of any place, size and turn of some canvases."""
    chosen = canvases[dice.integers(len(canvases), count)]
    scale = torch.exp(dice.uniform(count, low=-0.5, high=0.7)) * FINENESS
    turn = dice.normal(count) * 0.3
    place = dice.uniform(count, 2, low=-0.25, high=0.25) * canvases.shape[-1]
    x, y = _pixel_axes(height, width, canvases.device)
    grid = _camera(x, y, scale[:, None], turn[:, None], place[:, None])
    return _sample(chosen, grid[:, 0])


def _draw_subject(dice: Dice, motions: Motions, size: ClipSize) -> Subject:
    """Subjects are there where they move, and stand still in a quarter of the other clips."""
    count = len(motions.kinds)
    direction = _subject_direction(motions)
    moves = direction.abs().sum(1) > 0
    room = torch.tensor([size.width, size.height], device=dice.device)
    start = dice.uniform(count, 2, low=-0.3, high=0.3) * room
    along = -0.45 * SUBJECT_PIXELS * size.unit * direction  # so that it stays in the picture
    start = torch.where(direction.abs() > 0, along + 0.15 * start, start)
    radius = dice.uniform(count, 2, low=0.09, high=0.2) * min(size.height, size.width)
    tint = dice.uniform(count, 3, low=-1, high=1)
    return Subject(
        start=start,
        size=radius,
        power=torch.where(dice.chance(0.5, count), 2.0, 8.0),
        offset=dice.uniform(count, 2, low=-0.3, high=0.3) * size.canvas_side,
        tint=tint,
        present=(moves | dice.chance(0.25, count)).float(),
    )


def _subject_direction(motions: Motions) -> torch.Tensor:
    """The direction in which each subject moves on the screen, `(batch, 2)` (x, y), y downwards."""
    horizontal = motions.is_kind("subject_right") - motions.is_kind("subject_left")
    vertical = motions.is_kind("subject_down") - motions.is_kind("subject_up")
    return torch.stack([horizontal, vertical], dim=1)


def _render_some(scene: Scene, size: ClipSize, seconds: torch.Tensor) -> torch.Tensor:
    motions = scene.motions
    amount = progress(seconds)[None] * motions.speeds[:, None]  # (batch, frames)
    x, y = _pixel_axes(size.height, size.width, seconds.device)
    zoom = motions.is_kind("zoom_in") - motions.is_kind("zoom_out")
    turn = motions.is_kind("turn_left") - motions.is_kind("turn_right")
    scale = FINENESS * torch.exp(-math.log(ZOOM) * amount * zoom[:, None])
    angle = math.radians(TURN_DEGREES) * amount * turn[:, None]
    place = _camera_direction(motions)[:, None] * amount[..., None] * PAN_PIXELS * size.unit * FINENESS
    frames = _sample(scene.canvases, _camera(x, y, scale, angle, place))
    return _lay_subject(frames, scene, amount, x, y, size)


def _camera_direction(motions: Motions) -> torch.Tensor:
    """The direction in which each camera turns, `(batch, 2)` (x, y), y downwards."""
    horizontal = motions.is_kind("pan_right") - motions.is_kind("pan_left")
    vertical = motions.is_kind("pan_down") - motions.is_kind("pan_up")
    return torch.stack([horizontal, vertical], dim=1)


def _pixel_axes(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of pixels from the centre of the picture, `(height, width)`: x to the right, y down."""
    columns = torch.arange(width, device=device) - (width - 1) / 2
    rows = torch.arange(height, device=device) - (height - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x, y


def _camera(
    x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, angle: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """The point of the canvas at each pixel, `(batch, frames, height, width, 2)` in pixels from its centre.

    Args:
        scale: pixels of the canvas to one of the view, `(batch, frames)`.
        angle: by how much the picture is turned counter-clockwise, `(batch, frames)`.
        place: the point at the centre of the view, `(batch, frames, 2)`.
    """
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    wide = scale[..., None, None]
    across = wide * (x * cos - y * sin) + place[..., 0, None, None]
    down = wide * (x * sin + y * cos) + place[..., 1, None, None]
    return torch.stack([across, down], dim=-1)


def _sample(canvases: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Look at canvases `(batch, 3, side, side)`: views `(batch, 3, [frames,] height, width)`."""
    batch, *inner, width, _ = where.shape
    grid = where.reshape(batch, -1, width, 2) * (2 / canvases.shape[-1])
    seen = functional.grid_sample(
        canvases, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return seen.reshape(batch, canvases.shape[1], *inner, width)


def _lay_subject(
    frames: torch.Tensor, scene: Scene, amount: torch.Tensor, x: torch.Tensor, y: torch.Tensor, size: ClipSize
) -> torch.Tensor:
    """Lay the subject with its shadow over frames `(batch, 3, frames, height, width)`."""
    subject = scene.subject
    way = _subject_direction(scene.motions)[:, None] * amount[..., None] * SUBJECT_PIXELS * size.unit
    centre = subject.start[:, None] + way  # (batch, frames, 2)
    u, v = x - centre[..., 0, None, None], y - centre[..., 1, None, None]
    there = _coverage(u, v, subject) * subject.present[:, None, None, None]
    shadow = 0.3 * _coverage(u - 4 * size.unit, v - 6 * size.unit, subject, soft=4.0)
    shadow = (shadow * subject.present[:, None, None, None])[:, None]
    where = torch.stack([u, v], dim=-1) + subject.offset[:, None, None, None]
    texture = _sample(scene.canvases.roll(1, 0), where)
    shading = 0.3 * (u + v) / subject.size.sum(1)[:, None, None, None]
    picture = 0.5 * texture + 0.5 * subject.tint[..., None, None, None] - shading[:, None].clamp(-0.5, 0.5)
    frames = (frames + 1) * (1 - shadow) - 1
    return (frames * (1 - there[:, None]) + picture * there[:, None]).clamp(-1, 1)


def _coverage(u: torch.Tensor, v: torch.Tensor, subject: Subject, soft: float = 1.0) -> torch.Tensor:
    """The part of each pixel `(batch, frames, height, width)` that a subject covers, with an edge of `soft`
    pixels."""
    power = subject.power[:, None, None, None]
    wide, high = (subject.size[:, i, None, None, None] for i in range(2))
    distance = ((u / wide).abs() ** power + (v / high).abs() ** power + 1e-12) ** (1 / power) - 1
    return torch.sigmoid(-distance * wide * 2 / soft)

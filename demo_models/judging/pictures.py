"""The pictures that judge: photographs, and pictures that are drawn from seeds which training never uses."""

import importlib.util
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_models.train.clips import ClipSize, Motions, draw_scene, make_scene, render
from demo_models.train.seeds import Dice
from demo_models.train.wording import KINDS
from diffusers_helper.buckets import nearest_bucket
from diffusers_helper.media.images import fit_image, read_image

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SHIPPED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "moon.png", "rocket.jpg"),
)
"""The photographs in scikit-image's package."""
JUDGE = "judge"


@dataclass(frozen=True)
class Picture:
    """A picture `(h, w, 3)` uint8, cropped for the demo, and where it is from."""

    name: str
    pixels: np.ndarray
    is_photograph: bool


def find_photographs(folder: Path | None) -> list[Path]:
    """Those of a folder, and those of scikit-image where it is installed, each name once."""
    found: dict[str, Path] = {}
    folders = ([folder] if folder is not None else []) + shipped_folder()
    for place in folders:
        for path in sorted(place.iterdir()):
            is_wanted = path.name in SHIPPED if place != folder else path.suffix.lower() in ENDINGS
            if is_wanted:
                found.setdefault(path.name, path)
    return list(found.values())


def shipped_folder() -> list[Path]:
    """Find the folder of pictures of scikit-image, if it is installed."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "data"
    return [folder] if folder.is_dir() else []


def load_photograph(path: Path, resolution: int) -> Picture:
    """A photograph in the bucket that the engine would take."""
    picture = read_image(str(path))
    height, width = nearest_bucket(picture.shape[0], picture.shape[1], resolution)
    return Picture(path.stem, fit_image(picture, height, width), is_photograph=True)


def load_views(path: Path, resolution: int, shift: int) -> tuple[Picture, Picture]:
    """Two square views of a photograph, the second `shift` pixels further right where the photograph is
    wide enough, else further down."""
    picture = read_image(str(path))
    scale = (resolution + shift) / min(picture.shape[:2])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    pixels = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    x, y = (pixels.shape[1] - resolution - shift) // 2, (pixels.shape[0] - resolution) // 2
    first, second = (
        Picture(path.stem, pixels[y : y + resolution, x + d : x + d + resolution].copy(), is_photograph=True)
        for d in (0, shift)
    )
    return first, second


def draw_pictures(count: int, side: int, seed: int = 0) -> list[Picture]:
    """Square pictures that training never drew."""
    dice = Dice(torch.device("cpu"), seed, JUDGE, "pictures")
    size = ClipSize(1, side, side)
    frames = as_frames(render(draw_scene(dice, count, size), size)[:, :, 0])
    return [Picture(f"drawn {number}", frame, is_photograph=False) for number, frame in enumerate(frames)]


def draw_subject(kind: str, side: int, seed: int = 0) -> Picture:
    """The first frame of a clip in which a subject will move."""
    dice = Dice(torch.device("cpu"), seed, JUDGE, kind)
    size = ClipSize(1, side, side)
    canvases = draw_scene(dice, 2, size).canvases
    motions = Motions(torch.full((2,), KINDS.index(kind)), torch.ones(2))
    frames = render(make_scene(dice, canvases, size, motions), size)[:1, :, 0]
    return Picture(f"drawn with a subject ({kind})", as_frames(frames)[0], is_photograph=False)


def as_frames(pixels: torch.Tensor) -> np.ndarray:
    """Pixels `(n, 3, h, w)` in -1..1 as `(n, h, w, 3)` uint8."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).numpy()


def write_picture(picture: Picture, folder: Path) -> str:
    """Write a picture where the engine can read it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256(picture.pixels.tobytes()).hexdigest()[:16]}.png"
    Image.fromarray(picture.pixels).save(path)
    return str(path)

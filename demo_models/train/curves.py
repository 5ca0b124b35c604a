"""The curves of a training as one PNG, from its log."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .state import read_log

PANELS = (
    ("vae", "train", ("psnr_picture", "psnr_clip"), "VAE: PSNR in training, dB"),
    ("vae", "held out", ("psnr_pictures", "psnr_clips"), "VAE: PSNR on held-out pictures and clips, dB"),
    ("transformer", "train", ("loss",), "transformer: loss in training"),
    ("transformer", "held out", ("held_out_loss",), "transformer: loss on held-out clips"),
)
WIDTH, HEIGHT, MARGIN = 560, 300, 48
COLOURS = ((31, 98, 180), (214, 96, 28))
SMOOTHING = 0.85
Points = list[tuple[float, float]]


def draw_curves(state: Path, target: Path) -> None:
    """Draw what a state's log holds; a panel without numbers stays empty."""
    lines = read_log(state)
    picture = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "white")
    for number, (stage, what, names, title) in enumerate(PANELS):
        curves: dict[str, Points] = defaultdict(list)
        for line in lines:
            if line["stage"] == stage and line["what"] == what:
                for name in names:
                    if name in line:
                        curves[name].append((line["step"], line[name]))
        place = (number % 2 * WIDTH, number // 2 * HEIGHT)
        _draw_panel(picture, place, title, [(name, curves[name]) for name in names], what == "train")
    picture.save(target)


def _draw_panel(
    picture: Image.Image,
    place: tuple[int, int],
    title: str,
    curves: Sequence[tuple[str, Points]],
    smooth: bool,
) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    left, top = place[0] + MARGIN, place[1] + MARGIN
    right, bottom = place[0] + WIDTH - 16, place[1] + HEIGHT - 28
    draw.text((left, place[1] + 8), title, "black", font)
    draw.rectangle((left, top, right, bottom), outline=(160, 160, 160))
    everything = [point for _, points in curves for point in points]
    if not everything:
        return
    last = max(step for step, _ in everything) or 1
    low, high = min(value for _, value in everything), max(value for _, value in everything)
    high = max(high, low + 1e-6)
    for part in range(5):
        value, y = low + (high - low) * part / 4, bottom - (bottom - top) * part / 4
        draw.line((left, y, right, y), (230, 230, 230))
        draw.text((place[0] + 4, y - 6), f"{value:.4g}", (90, 90, 90), font)
    draw.text((left, bottom + 6), "0", (90, 90, 90), font)
    draw.text((right - 60, bottom + 6), f"step {last:.0f}", (90, 90, 90), font)
    for number, (name, points) in enumerate(curves):
        colour = COLOURS[number]
        draw.text((left + 6 + 140 * number, top - 16), name, colour, font)
        shown = [
            (left + (right - left) * step / last, bottom - (bottom - top) * (value - low) / (high - low))
            for step, value in (_smoothed(points) if smooth else points)
        ]
        if len(shown) == 1:
            draw.ellipse((shown[0][0] - 2, shown[0][1] - 2, shown[0][0] + 2, shown[0][1] + 2), colour)
        draw.line(shown, colour, 2)


def _smoothed(points: Points) -> Points:
    """A running mean, which forgets."""
    mean, weight, result = 0.0, 0.0, []
    for step, value in points:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + 1 - SMOOTHING
        result.append((step, mean / weight))
    return result


def main(arguments: list[str] | None = None) -> int:
    """The command line: from a training's folder to a picture."""
    parser = argparse.ArgumentParser(description="Draw the curves of a training.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="a PNG")
    options = parser.parse_args(arguments)
    draw_curves(options.state, options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())

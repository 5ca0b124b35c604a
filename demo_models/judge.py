"""The judge of the demo's models: makes videos with the real engine on a processor and measures what they
show.

    python -m demo_models.judge --models DIR --pictures PHOTOGRAPHS --to DIR

Writes `judge.json` and `judge.md`, the table of `demo_models/README.md`. Nothing here was seen in training:
photographs, and pictures drawn from other seeds. Takes about half an hour on two cores; `--only` takes some
of the parts.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from demo_models.train.clips import PAN_PIXELS, ClipSize, draw_clips, progress
from demo_models.train.seeds import Dice
from demo_models.train.wording import PANS, SUBJECTS, TURNS, ZOOMS
from diffusers_helper.vae.codec import decode_to, encode_picture

from .judging.measure import largest_jump, measure_drift, psnr, video_psnr
from .judging.motion import camera_kind, measure_camera, measure_subject, subject_kind
from .judging.pictures import (
    JUDGE,
    Picture,
    as_frames,
    draw_pictures,
    draw_subject,
    find_photographs,
    load_photograph,
    load_views,
)
from .judging.runs import Studio, Video

PROMPTS = {
    "pan_left": "The camera pans left.",
    "pan_right": "The camera pans right.",
    "pan_up": "The camera pans up.",
    "pan_down": "The camera pans down.",
    "zoom_in": "Zoom in.",
    "zoom_out": "Zoom out.",
    "turn_left": "The picture turns left.",
    "turn_right": "The picture turns right.",
    "subject_left": "The ball moves left.",
    "subject_right": "The ball moves right.",
}
VAE_BAR, END_BAR, START_SLACK = 26.0, 20.0, 1.5
DIRECTIONS_BAR = 0.9
JUMP_BAR = 3.0
COLOUR_BAR, CONTRAST_BAR, SHARPNESS_BAR = 16.0, 0.6, 0.4
TIME_BAR = 60.0
SHIFT_AFTER_2_SECONDS = round(PAN_PIXELS * float(progress(torch.tensor(2.2))))


@dataclass(frozen=True)
class Row:
    """A line of the table. `met` is None where there is nothing to be met."""

    what: str
    measured: str
    bar: str
    met: bool | None
    details: Any = None


@dataclass
class Judge:
    """The state that all parts share: the studio, the pictures, and all videos made so far."""

    studio: Studio
    resolution: int
    photographs: list[Path]
    seconds: float = 2.0
    videos: list[tuple[str, Video]] = field(default_factory=list)

    def make(
        self, name: str, start: Picture, prompt: str, end: Picture | None = None, **values: Any
    ) -> Video:
        video = self.studio.make(start, prompt, end, **{"seconds": self.seconds} | values)
        self.videos.append((f"{name}: {start.name}", video))
        _tell(f"made {name} of {start.name}")
        return video

    def pictures(self, count: int) -> list[Picture]:
        """Photographs and drawn pictures in turn."""
        photographs = [load_photograph(path, self.resolution) for path in self.photographs[:count]]
        drawn = draw_pictures(count, self.resolution)
        both = [picture for pair in zip(photographs, drawn, strict=False) for picture in pair]
        return (both + drawn)[:count] if len(both) < count else both[:count]


def judge_vae(judge: Judge) -> list[Row]:
    """PSNR of photographs, drawn pictures and a drawn clip through the VAE as the engine uses it."""
    photographs = [load_photograph(path, judge.resolution) for path in judge.photographs]
    drawn = draw_pictures(8, judge.resolution)
    with judge.studio.loader.vae() as vae:
        found = {picture.name: _through(vae, picture) for picture in (*photographs, *drawn)}
        clips = _clip_psnr(vae, judge.resolution)
    averages = [float(np.mean([found[p.name] for p in group])) for group in (photographs, drawn) if group]
    mean = float(np.mean(list(found.values())))
    worst = min(found, key=lambda name: found[name])
    parts = " and ".join(f"{value:.1f}" for value in averages)
    measured = f"{mean:.1f} dB ({parts}); at worst {found[worst]:.1f} ({worst})"
    name = f"VAE: PSNR of {len(photographs)} photographs and {len(drawn)} drawn pictures"
    return [
        Row(name, measured, f"{VAE_BAR:.0f} dB on average", mean >= VAE_BAR, found),
        Row("VAE: PSNR of drawn clips", f"{clips:.1f} dB", "", None),
    ]


def judge_directions(judge: Judge) -> list[Row]:
    """The measured motion against the prompt, and the first frames against the start images."""
    kinds = (*PANS, *ZOOMS, *TURNS, *SUBJECTS[:2])
    pictures = judge.pictures(len(kinds) - 2)
    pictures += [draw_subject(kind, judge.resolution) for kind in kinds[-2:]]
    found, firsts, reference = {}, [], []
    for kind, picture in zip(kinds, pictures, strict=True):
        video = judge.make(kind, picture, PROMPTS[kind])
        found[f"{kind} ({picture.name})"] = measured = _measured_kind(kind, video)
        firsts.append(psnr(video.frames[0], picture.pixels))
        with judge.studio.loader.vae() as vae:
            reference.append(_through(vae, picture))
        _tell(f"  asked for {kind}, measured {measured}; first frame {firsts[-1]:.1f} dB")
    right = sum(name.split(" ")[0] == measured for name, measured in found.items())
    first, own = float(np.mean(firsts)), float(np.mean(reference))
    return [
        Row(
            "Motion agrees with the prompt",
            f"{right} of {len(kinds)}",
            "9 of 10",
            right >= DIRECTIONS_BAR * len(kinds),
            found,
        ),
        Row(
            "First frame against the start image",
            f"{first:.1f} dB, at worst {min(firsts):.1f} (the VAE alone: {own:.1f})",
            f"the VAE's own, less {START_SLACK} dB",
            first >= own - START_SLACK,
            firsts,
        ),
    ]


def judge_ends(judge: Judge) -> list[Row]:
    """The last frame against the end image, and against that of the same run without one."""
    given: list[float] = []
    without: list[float] = []
    names: list[str] = []
    for name, start, end, prompt in _endings(judge):
        videos = [
            judge.make(f"end ({name})", start, prompt, end),
            judge.make(f"no end ({name})", start, prompt),
        ]
        for values, video in zip((given, without), videos, strict=True):
            values.append(psnr(video.frames[-1], end.pixels))
        names.append(f"{name}: {start.name}")
        _tell(f"  last frame {given[-1]:.1f} dB, without an end image {without[-1]:.1f} dB")
    mean, free = float(np.mean(given)), float(np.mean(without))
    better = sum(a > b for a, b in zip(given, without, strict=True))
    return [
        Row(
            "Last frame against the end image",
            f"{mean:.1f} dB, at worst {min(given):.1f}; without it {free:.1f}; better in {better}",
            f"{END_BAR:.0f} dB, and better than without",
            mean >= END_BAR and better == len(given),
            dict(zip(names, zip(given, without, strict=True), strict=True)),
        )
    ]


def judge_drift(judge: Judge) -> list[Row]:
    """Measure how far longer videos drift from their first frame."""
    rows = []
    picture, *_ = judge.pictures(1)
    for seconds in (2 * judge.seconds, 4 * judge.seconds):
        for kind, prompt in (("still", "The camera stands still."), ("pan_right", PROMPTS["pan_right"])):
            video = judge.make(f"{seconds:g} s, {kind}", picture, prompt, seconds=seconds)
            drift = measure_drift(video.frames)
            good = (
                drift.colour <= COLOUR_BAR
                and CONTRAST_BAR <= drift.contrast <= 1 / CONTRAST_BAR
                and SHARPNESS_BAR <= drift.sharpness <= 1 / SHARPNESS_BAR
            )
            measured = f"colour {drift.colour:.1f} levels, "
            measured += f"contrast x{drift.contrast:.2f}, edges x{drift.sharpness:.2f}"
            bar = f"{COLOUR_BAR:.0f} levels, x{CONTRAST_BAR}, x{SHARPNESS_BAR} (still)"
            is_still = kind == "still"
            name = f"Drift over {seconds:g} s ({kind})"
            rows.append(
                Row(name, measured, bar if is_still else "", good if is_still else None, asdict(drift))
            )
    return rows


def judge_joints(judge: Judge) -> list[Row]:
    """Measure the largest step between two frames against those around it, in all videos made so far."""
    jumps = {name: largest_jump(video.frames) for name, video in judge.videos}
    if not jumps:
        return []
    name, (ratio, frame) = max(jumps.items(), key=lambda item: item[1][0])
    measured = f"x{ratio:.2f} at worst ({name}, frame {frame}), in {len(jumps)} videos"
    bar = f"no step over x{JUMP_BAR:.0f} of those around it"
    return [Row("Jumps at the joints", measured, bar, ratio < JUMP_BAR, jumps)]


def judge_teacache(judge: Judge) -> list[Row]:
    """Measure the loss of quality and the gain of time by skipped steps."""
    picture, *_ = judge.pictures(1)
    full = judge.make("TeaCache off", picture, PROMPTS["pan_left"], teacache=False)
    rows = []
    for threshold in (0.15, 0.40):
        video = judge.make(
            f"TeaCache {threshold}", picture, PROMPTS["pan_left"], teacache=True, teacache_threshold=threshold
        )
        near = video_psnr(video.frames, full.frames)
        measured = f"{near:.1f} dB; {video.evaluations} of {video.steps} evaluations"
        rows.append(Row(f"TeaCache at {threshold:.2f} against off", measured, "", None))
    return rows


def judge_time(judge: Judge) -> list[Row]:
    """Seconds from the command to the MP4."""
    picture, *_ = judge.pictures(1)
    seconds = judge.studio.time_command(picture, PROMPTS["zoom_in"], seconds=judge.seconds)
    height, width = picture.pixels.shape[:2]
    name = f"{judge.seconds:g} s of video, {width}x{height}, command to MP4"
    return [Row(name, f"{seconds:.0f} s", f"{TIME_BAR:.0f} s on 2 cores", seconds <= TIME_BAR)]


PARTS: dict[str, Callable[[Judge], list[Row]]] = {
    "vae": judge_vae,
    "time": judge_time,
    "directions": judge_directions,
    "ends": judge_ends,
    "teacache": judge_teacache,
    "drift": judge_drift,
    "joints": judge_joints,
}
"""The parts of the judgement, in order: the joints are measured in the videos of all others."""


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    marks = {True: "yes", False: "**no**", None: ""}
    lines = ["| what | measured | asked for | met |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {r.what} | {r.measured} | {r.bar} | {marks[r.met]} |" for r in rows]) + "\n"


def _endings(judge: Judge) -> list[tuple[str, Picture, Picture, str]]:
    """Start, end and prompt: the same scene further right, and quite another picture."""
    photographs = judge.photographs[:2]
    views = [load_views(path, judge.resolution, SHIFT_AFTER_2_SECONDS) for path in photographs]
    drawn = draw_pictures(4, judge.resolution)
    same = [("same scene", start, end, PROMPTS["pan_right"]) for start, end in views]
    others = [("another picture", drawn[0], drawn[1], PROMPTS["zoom_in"])]
    if len(views) == 2:
        others.append(("another picture", views[0][0], views[1][0], PROMPTS["pan_left"]))
    return same + others


def _measured_kind(kind: str, video: Video) -> str:
    height, width = video.frames[0].shape[:2]
    camera = camera_kind(measure_camera(video.frames), height, width)
    if kind not in SUBJECTS:
        return camera
    return subject_kind(measure_subject(video.frames)) if camera == "still" else camera


def _through(vae: Any, picture: Picture) -> float:
    latents = encode_picture(picture.pixels, vae)
    frames = torch.stack([*decode_to(iter, latents, vae, 2**40)])
    return psnr(frames[0].round().numpy(), picture.pixels)


def _clip_psnr(vae: Any, side: int) -> float:
    dice = Dice(torch.device("cpu"), 0, JUDGE, "clips")
    pixels, _ = draw_clips(dice, 2, ClipSize(33, side, side))
    found = []
    for clip in pixels.split(1):
        with torch.inference_mode():
            latents = vae.encode(clip).latent_dist.mode() * vae.config.scaling_factor
        seen = torch.stack([*decode_to(iter, latents, vae, 2**40)]).round().numpy()
        found.append(psnr(seen, as_frames(rearrange(clip, "1 c t h w -> t c h w"))))
    return float(np.mean(found))


def _tell(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 0 if everything that was asked for is met, else 1."""
    options = _parse(arguments)
    options.to = options.to.resolve()  # a request names its pictures from its own place
    options.to.mkdir(parents=True, exist_ok=True)
    studio = Studio(options.models, options.to / "videos", **json.loads(options.settings))
    (options.to / "videos").mkdir(exist_ok=True)
    photographs = find_photographs(options.pictures)
    judge = Judge(studio, options.resolution, photographs, options.seconds)
    rows: list[Row] = []
    for name in options.only or PARTS:
        _tell(f"== {name}")
        rows += PARTS[name](judge)
        (options.to / "judge.md").write_text(table(rows), "utf-8")
        (options.to / "judge.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), "utf-8")
    _tell(table(rows))
    return 1 if any(row.met is False for row in rows) else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge the demo's models.")
    folder = Path(__file__).parent
    parser.add_argument("--models", type=Path, default=folder, help="default: demo_models")
    parser.add_argument("--pictures", type=Path, help="a folder of photographs")
    parser.add_argument(
        "--to", type=Path, required=True, help="where the table, the numbers and the videos go"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), help="these parts")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of most videos; drift takes 2 and 4 times it"
    )
    parser.add_argument("--settings", default="{}", help="JSON: further keys of every request")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

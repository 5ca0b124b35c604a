"""The demo from end to end: the command, the trained models and all of the engine make what was asked for."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_models.judging.measure import largest_jump, psnr
from demo_models.judging.motion import camera_kind, measure_camera
from diffusers_helper.media.video import read_frames
from webui.eichi_utils.engine_options import ROOT

PHOTOGRAPH = ROOT / "examples" / "coffee.png"
START_LEFT, END_LEFT = 150, 100
"""Pixels from the left of the two square views of it."""


@dataclass(frozen=True)
class Made:
    """Frames `(h, w, 3)` uint8 of a video, the cropped start image, and what the terminal said."""

    frames: list[np.ndarray]
    start: np.ndarray
    said: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a start and an end image: two views of a photograph, the end further left."""
    home = tmp_path_factory.mktemp("demo")
    with Image.open(PHOTOGRAPH) as picture:
        for name, left in (("start", START_LEFT), ("end", END_LEFT)):
            picture.convert("RGB").crop((left, 0, left + 400, 400)).save(home / f"{name}.png")
    return home


@pytest.fixture(scope="module")
def make(home: Path) -> Callable[..., Made]:
    """The command as a person types it, with `--demo`."""

    def made(name: str, **values: object) -> Made:
        request = {"start_image": "start.png", "seed": 1, "seconds": 1} | values
        (home / f"{name}.json").write_text(json.dumps(request), "utf-8")
        command = [sys.executable, str(ROOT / "webui" / "endframe_ichi.py"), "--demo", "--home", str(home)]
        command += ["--device", "cpu", "--headless", str(home / f"{name}.json"), "--name", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with Image.open(home / "outputs" / f"{name}.png") as start:
            pixels = np.asarray(start.convert("RGB"))
        return Made(list(read_frames(home / "outputs" / f"{name}.mp4")), pixels, done.stderr)

    return made


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "kind"), [("The camera pans left.", "pan_left"), ("Zoom in.", "zoom_in")])
def test_a_photograph_moves_as_the_prompt_says(make, prompt, kind):
    made = make(kind, prompt=prompt)
    assert "This is the demo" in made.said
    assert made.frames[0].shape == (192, 192, 3), "the demo's own resolution, where none is named"
    assert psnr(made.frames[0], made.start) > 24
    assert camera_kind(measure_camera(made.frames), 192, 192) == kind
    assert largest_jump(made.frames)[0] < 3


@pytest.mark.slow
def test_the_video_ends_in_the_end_image(home, make):
    made = make("end", prompt="The camera pans left.", end_image="end.png")
    with Image.open(home / "end.png") as picture:
        end = np.asarray(picture.resize((192, 192), Image.Resampling.LANCZOS))
    assert psnr(made.frames[-1], end) > 20

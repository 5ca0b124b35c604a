"""The demo from end to end: the command, the trained models and all of the engine make what was asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_models.judging.measure import largest_jump, psnr
from demo_models.judging.motion import camera_kind, measure_camera
from diffusers_helper.media.video import read_frames
from webui.eichi_utils.engine_options import ROOT
from webui.endframe_ichi import main

pytestmark = pytest.mark.slow

PHOTOGRAPH = ROOT / "examples" / "coffee.png"
START_LEFT, END_LEFT = 150, 100
"""Pixels from the left of the two square views of it."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a start and an end image: two views of a photograph, the end further left."""
    home = tmp_path_factory.mktemp("demo")
    with Image.open(PHOTOGRAPH) as picture:
        for name, left in (("start", START_LEFT), ("end", END_LEFT)):
            picture.convert("RGB").crop((left, 0, left + 400, 400)).save(home / f"{name}.png")
    return home


@pytest.fixture
def make(home: Path, capsys) -> Callable[..., tuple[list[np.ndarray], np.ndarray]]:
    """The command with `--demo`; gives the frames `(h, w, 3)` uint8 of a video and its cropped start."""

    def made(name: str, **values: object) -> tuple[list[np.ndarray], np.ndarray]:
        request = {"start_image": "start.png", "seed": 1, "seconds": 1} | values
        (home / f"{name}.json").write_text(json.dumps(request), "utf-8")
        command = ["--demo", "--home", str(home), "--device", "cpu", "--lang", "en"]
        assert main([*command, "--headless", str(home / f"{name}.json"), "--name", name]) == 0
        assert "This is the demo" in capsys.readouterr().err
        with Image.open(home / "outputs" / f"{name}.png") as start:
            return list(read_frames(home / "outputs" / f"{name}.mp4")), np.asarray(start.convert("RGB"))

    return made


@pytest.mark.parametrize(("prompt", "kind"), [("The camera pans left.", "pan_left"), ("Zoom in.", "zoom_in")])
def test_a_photograph_moves_as_the_prompt_says(make, prompt, kind):
    frames, start = make(kind, prompt=prompt)
    assert frames[0].shape == (192, 192, 3), "the demo's own resolution, where none is named"
    assert psnr(frames[0], start) > 24
    assert camera_kind(measure_camera(frames), 192, 192) == kind
    assert largest_jump(frames)[0] < 3


def test_the_video_ends_in_the_end_image(home, make):
    frames, _ = make("end", prompt="The camera pans left.", end_image="end.png")
    with Image.open(home / "end.png") as picture:
        end = np.asarray(picture.resize((192, 192), Image.Resampling.LANCZOS))
    assert psnr(frames[-1], end) > 20

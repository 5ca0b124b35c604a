"""The predecessor's own numbers on the tiny models, from its request file to the MP4."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.video import read_frames
from diffusers_helper.plan import make_plan
from tests.support.tiny import GOLDEN, load_latents, make_loader, run

SLOW = ("all_padding", "end_frame_weak", "half_second_window")
CASES = [
    pytest.param(path.parent.name, marks=[pytest.mark.slow] if path.parent.name in SLOW else [])
    for path in sorted(GOLDEN.glob("*/expected.json"))
]
LUMA = np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("case", CASES)
def test_video_equals_the_reference(case, tmp_path):
    folder = GOLDEN / case
    expected = load_file(folder / "expected.safetensors")
    facts = json.loads((folder / "expected.json").read_text())

    list(run(load_request(folder / "request.json"), tmp_path / "out", save_latents=True))

    latents = load_latents(tmp_path / "out" / "a.safetensors")
    difference = latents[:, :, 1:] - expected["latents"]
    assert difference.norm() / expected["latents"].norm() < 1e-4
    with safe_open(tmp_path / "out" / "a.safetensors", "pt") as file:
        evaluations = json.loads(file.metadata()["transformer_evaluations"])
    assert evaluations == facts["transformer_evaluations"]
    check_video(tmp_path / "out" / "a.mp4", facts["num_pixel_frames"], expected["pixels_every_8th"])


def check_video(path: Path, count: int, expected) -> None:
    """The frames' brightness agrees to 30 dB. (In colour no 4:2:0 video can: the pictures are noise.)"""
    frames = list(read_frames(path))
    assert len(frames) == count
    for frame, pixels in zip(frames[::8], expected[0].transpose(0, 1), strict=True):
        wanted = (pixels.float().clamp(-1, 1).permute(1, 2, 0).numpy() + 1) * 127.5
        error = np.mean(((frame - wanted) @ LUMA) ** 2)
        assert 10 * np.log10(255**2 / error) > 30


@pytest.mark.parametrize("case", ["one_second", "true_cfg"])
def test_conditioning_equals_the_reference(case):
    from diffusers_helper.encoding.conditioning import encode_vision, read_pictures
    from diffusers_helper.encoding.prompts import encode_prompts, pad_prompt
    from diffusers_helper.vae.codec import encode_picture

    expected = load_file(GOLDEN / case / "expected.safetensors")
    request = load_request(GOLDEN / case / "request.json")
    loader = make_loader()
    (picture,) = read_pictures(request, make_plan(request)).values()
    prompt = pad_prompt(encode_prompts([request.prompt], loader)[request.prompt])
    with loader.vae() as vae:
        latents = encode_picture(picture, vae)
    assert prompt.mask.int().tolist() == expected["prompt_embeds_mask"].int().tolist()
    for found, name in (
        (prompt.embeds, "prompt_embeds"),
        (prompt.pooled, "prompt_pooled"),
        (encode_vision(picture, loader)[None], "image_embeds"),
        (latents, "clean_latents"),
    ):
        wanted = expected[name][:, :, :1] if name == "clean_latents" else expected[name]
        assert (found - wanted).norm() / wanted.norm() < 1e-5, name

"""`--demo`: which models, which resolution, and that it is said."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media.embedded_request import load_request, write_png
from diffusers_helper.request import GenerationRequest
from diffusers_helper.version import VERSION
from diffusers_helper.weights.model_files import find_models
from tests.support.fake_app import fake_app
from tests.support.page_options import options
from webui import endframe_ichi
from webui.eichi_utils.app import open_settings
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.engine_options import DEMO, DEMO_RESOLUTION, ROOT, EngineOptions
from webui.eichi_utils.page.api import _request

MOST_BYTES = 40_000_000


def test_the_demos_models_are_complete_and_at_most_40_mb():
    files = find_models(DEMO)
    parts = (files.text_encoder, files.text_encoder_2, files.vae, files.image_encoder, files.transformer)
    for part in parts:
        dtypes = {tensor.dtype for tensor in part.checkpoint.tensors.values()}
        assert dtypes <= {"F16", "BF16"}, part.folder
    folders = (DEMO / "hunyuanvideo-community", DEMO / "lllyasviel")
    stored = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) <= MOST_BYTES


def test_a_preview_has_the_colours_of_the_demos_video():
    import torch
    from diffusers import AutoencoderKLHunyuanVideo

    from diffusers_helper.vae.preview import preview_latents

    files = find_models(DEMO)
    vae = AutoencoderKLHunyuanVideo.from_pretrained(files.vae.folder).float().eval()
    picture = Image.open(ROOT / "examples" / "coffee.png").convert("RGB").resize((96, 96))
    pixels = torch.tensor(np.array(picture)).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    with torch.inference_mode():
        latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    wanted = np.array(picture.resize((12, 12), Image.Resampling.BOX), np.float64)
    own, real = (
        preview_latents(latents, fit)[0].astype(np.float64) for fit in (files.vae.config["latent_rgb"], None)
    )
    assert abs(own.mean((0, 1)) - wanted.mean((0, 1))).max() < 15
    assert abs(own - wanted).mean() < abs(real - wanted).mean() / 2


def test_the_command_uses_the_demos_models_and_says_so(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(endframe_ichi, "_run_page", lambda *given: ran.append(given[1]) or 0)
    assert endframe_ichi.main(["--demo", "--lang", "en", "--home", str(tmp_path)]) == 0
    assert ran[0].uses_demo
    assert "camera moves" in capsys.readouterr().err


def test_the_demo_and_a_folder_of_models_exclude_each_other(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        endframe_ichi.main(["--demo", "--models", "x", "--lang", "en"])
    assert "not both" in capsys.readouterr().err


def test_the_demos_resolution_is_only_a_default(tmp_path):
    real, demo = (open_settings(options(tmp_path, demo=is_demo)) for is_demo in (False, True))
    assert demo.load() == real.load() | {"resolution": DEMO_RESOLUTION}
    demo.update(resolution=640)
    assert demo.load() == real.load() | {"resolution": 640}
    assert [path.name for path in (tmp_path / "settings").iterdir()] == ["demo_settings.json"]


@pytest.mark.parametrize(
    ("values", "defaults", "resolution"),
    [({}, {"resolution": 192}, 192), ({"resolution": 320}, {"resolution": 192}, 320), ({}, {}, 640)],
)
def test_a_request_defaults_to_the_demos_resolution(tmp_path, values, defaults, resolution):
    assert _request(values, {"start_image": "a.png"}, defaults).resolution == resolution
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"start_image": "a.png"} | values), "utf-8")
    assert load_request(file, defaults).resolution == resolution


def test_a_file_that_we_wrote_keeps_its_own_size(tmp_path):
    """Its request has a width and a height, whatever the default is."""
    picture = np.zeros((64, 96, 3), np.uint8)
    packed = GenerationRequest("a.png", seed=1, width=96, height=64).to_dict()
    del packed["start_image"]
    write_png(tmp_path / "a.png", picture, json.dumps(packed))
    request = load_request(tmp_path / "a.png", {"resolution": DEMO_RESOLUTION})
    assert (request.width, request.height, request.resolution) == (96, 64, 640)


@pytest.mark.parametrize(
    ("models", "demo", "forced"),
    [(None, False, DEMO_RESOLUTION), (DEMO, True, None), (Path("x"), False, None)],
)
def test_the_page_starts_with_the_demos_resolution(tmp_path, monkeypatch, models, demo, forced):
    """A user who asked for the demo may choose another resolution."""
    monkeypatch.setattr(ModelFolders, "of_user", lambda given, own: ModelFolders(given, own))
    engine = EngineOptions(models, tmp_path / "cache", "cpu", None, tmp_path / "hf_download")
    chosen = options(tmp_path, engine=engine, demo=demo)
    with fake_app(tmp_path, lambda *_: iter(()), options=chosen) as app:
        assert app.forced_resolution == forced


PAGES = """
import sys, tempfile
from pathlib import Path
from tests.support.fake_app import fake_app
from webui.eichi_utils.page.page import build_page

for demo in (True, False):
    home = Path(tempfile.mkdtemp())
    with fake_app(home, lambda *_: iter(()), demo=demo) as app:
        parts = build_page(app).get_config_file()["components"]
        print([part["props"]["value"] for part in parts if part["props"].get("elem_id") in ("demo", "foot")])
"""


def test_the_page_names_the_demo():
    """Runs in a process of its own, because gradio leaves files open."""
    made = subprocess.run([sys.executable, "-c", PAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    demo, real = made.stdout.splitlines()
    assert "Demo: tiny models" in demo
    assert real == f"['Endframe Ichi {VERSION}']", "the foot alone"

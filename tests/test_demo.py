"""`--demo`: which models, which resolution, and that it is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from demo_models import random_models
from diffusers_helper.errors import MachineError
from tests.tiny import MODELS
from webui import endframe_ichi
from webui.eichi_utils import demo as module
from webui.eichi_utils.app_state import SETTINGS_FIELDS
from webui.eichi_utils.default_models import ROOT
from webui.eichi_utils.demo import RESOLUTION, Demo, demo_fields, find_demo
from webui.eichi_utils.page_api import _request


@pytest.fixture
def built(tmp_path, monkeypatch) -> list[Path]:
    """The random sets that were asked for; nothing is trained unless a test says so."""
    asked: list[Path] = []

    def build(folder: Path) -> Path:
        asked.append(folder)
        return folder

    monkeypatch.setattr(random_models, "build_random_models", build)
    monkeypatch.setattr(module, "TRAINED", tmp_path / "demo_models")
    return asked


def test_the_trained_models_are_taken_where_they_are_complete(built, monkeypatch):
    monkeypatch.setattr(module, "TRAINED", MODELS)
    assert find_demo() == Demo(MODELS, is_trained=True)
    assert built == []


def test_else_random_ones_are_made(built):
    assert find_demo() == Demo(module.RANDOM, is_trained=False)
    assert built == [module.RANDOM]


def test_a_disk_that_is_full_is_told(built, monkeypatch):
    def build(folder: Path) -> Path:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(random_models, "build_random_models", build)
    with pytest.raises(MachineError) as caught:
        find_demo()
    assert caught.value.code == "cannot_write"
    assert built == []


@pytest.mark.parametrize(("is_trained", "words"), [(True, "camera moves"), (False, "noise")])
def test_the_command_uses_the_demos_models_and_says_so(is_trained, words, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(module, "find_demo", lambda: Demo(MODELS, is_trained))
    monkeypatch.setattr(endframe_ichi, "_run_page", lambda options, demo: ran.append((options, demo)) or 0)
    assert endframe_ichi.main(["--demo", "--lang", "en"]) == 0
    options, demo = ran[0]
    assert endframe_ichi._engine(options).models == MODELS
    assert demo == Demo(MODELS, is_trained)
    assert words in capsys.readouterr().err


def test_the_demo_and_a_folder_of_models_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        endframe_ichi.main(["--demo", "--models", "x"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_demos_resolution_is_the_default_and_no_more():
    fields = demo_fields(SETTINGS_FIELDS)
    assert fields["resolution"].default == RESOLUTION == 192
    assert fields["resolution"].takes(640)
    assert {key for key in fields if fields[key] is not SETTINGS_FIELDS[key]} == {"resolution"}


def test_a_program_gets_the_demos_resolution_unless_it_names_one():
    own: dict[str, object] = {"start_image": "a.png"}
    assert _request(None, own, {"resolution": RESOLUTION}).resolution == 192
    assert _request({"resolution": 320}, own, {"resolution": RESOLUTION}).resolution == 320
    assert _request(None, own, {}).resolution == 640


PAGES = """
import sys, tempfile
from pathlib import Path
from tests.pretend_app import pretend_app
from webui.eichi_utils.demo import Demo
from webui.eichi_utils.page import build_page

for demo in (Demo(Path("x"), True), Demo(Path("x"), False), None):
    home = Path(tempfile.mkdtemp())
    with pretend_app(home, lambda *_: iter(()), demo=demo) as app:
        parts = build_page(app).get_config_file()["components"]
        print([part["props"]["value"] for part in parts if part["props"].get("elem_id") == "demo"])
"""


def test_the_page_says_plainly_that_it_is_the_demo():
    """In a process of its own: gradio leaves things open."""
    made = subprocess.run([sys.executable, "-c", PAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    trained, random, real = made.stdout.splitlines()
    assert "Demo: tiny models" in trained
    assert "noise" in random
    assert real == "[]"

"""Which models serve when nobody names a folder."""

import shutil
from pathlib import Path

import pytest

from demo_models import random_models
from diffusers_helper.errors import InputError, MachineError
from tests.tiny import MODELS
from webui.eichi_utils import default_models as module
from webui.eichi_utils.default_models import default_models
from webui.eichi_utils.translations import Translator


@pytest.fixture
def said(tmp_path, monkeypatch) -> list[str]:
    """What is said; with a download and a stand-in in fresh folders, the latter quickly made."""
    monkeypatch.setattr(module, "DOWNLOADED", tmp_path / "hf_download")
    monkeypatch.setattr(module, "RANDOM", tmp_path / "random")
    monkeypatch.setattr(random_models, "build_random_models", lambda folder: shutil.copytree(MODELS, folder))
    return []


def find(said: list[str]) -> Path:
    return default_models(Translator("en"), said.append).transformer.folder


def test_the_download_is_taken_without_a_word(tmp_path, said):
    shutil.copytree(MODELS, tmp_path / "hf_download")
    assert find(said).is_relative_to(tmp_path / "hf_download")
    assert said == []


@pytest.mark.parametrize("folder_exists", [True, False])
def test_without_a_download_tiny_models_serve_and_this_is_said(tmp_path, said, folder_exists):
    if folder_exists:
        (tmp_path / "hf_download").mkdir()
    assert find(said).is_relative_to(tmp_path / "random")
    assert len(said) == 1
    assert "The video will be noise" in said[0]


def test_half_a_download_is_named_and_not_replaced_by_noise(tmp_path, said):
    blobs = tmp_path / "hf_download" / "hub" / "models--lllyasviel--FramePackI2V_HY" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "123.incomplete").write_bytes(b"half")
    with pytest.raises(InputError) as caught:
        find(said)
    assert caught.value.code == "model_missing"
    assert said == []


def test_a_stand_in_that_cannot_be_written_is_the_machines_fault(tmp_path, said, monkeypatch):
    def build(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(random_models, "build_random_models", build)
    with pytest.raises(MachineError) as caught:
        find(said)
    assert caught.value.values == {"path": str(tmp_path / "random"), "reason": "Permission denied"}

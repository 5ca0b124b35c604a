"""Which models serve when nobody names a folder."""

import shutil
from pathlib import Path

import pytest

from demo_models import random_models
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.events import Notice
from tests.tiny import MODELS
from webui.eichi_utils import default_models as module
from webui.eichi_utils.default_models import default_models
from webui.eichi_utils.download_places import Places


@pytest.fixture
def told(tmp_path, monkeypatch) -> list[Notice]:
    """What is told; with a download and a stand-in in fresh folders, the latter quickly made."""
    monkeypatch.setattr(module, "RANDOM", tmp_path / "random")
    monkeypatch.setattr(random_models, "build_random_models", lambda folder: shutil.copytree(MODELS, folder))
    return []


def find(told: list[Notice], tmp_path: Path, *caches: Path) -> Path:
    search = default_models(Places(None, tmp_path / "hf_download", caches))
    try:
        while True:
            told.append(next(search))
    except StopIteration as end:
        return end.value.transformer.folder


def test_the_download_is_taken_without_a_word(tmp_path, told):
    shutil.copytree(MODELS, tmp_path / "hf_download")
    assert find(told, tmp_path).is_relative_to(tmp_path / "hf_download")
    assert told == []


def test_models_that_another_program_downloaded_are_used_where_they_are(tmp_path, told):
    shutil.copytree(MODELS, tmp_path / "huggingface")
    assert find(told, tmp_path, tmp_path / "huggingface").is_relative_to(tmp_path / "huggingface")
    assert told == []
    assert not (tmp_path / "hf_download").exists()


@pytest.mark.parametrize("folder_exists", [True, False])
def test_without_a_download_tiny_models_serve_and_this_is_told(tmp_path, told, folder_exists):
    if folder_exists:
        (tmp_path / "hf_download").mkdir()
    assert find(told, tmp_path).is_relative_to(tmp_path / "random")
    assert told == [Notice("random_models", {"path": str(tmp_path / "hf_download")})]


def test_half_a_download_is_named_and_not_replaced_by_noise(tmp_path, told):
    blobs = tmp_path / "hf_download" / "hub" / "models--lllyasviel--FramePackI2V_HY" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "123.incomplete").write_bytes(b"half")
    with pytest.raises(InputError) as caught:
        find(told, tmp_path)
    assert caught.value.code == "model_missing"
    assert told == []


def test_a_stand_in_that_cannot_be_written_is_the_machines_fault(tmp_path, told, monkeypatch):
    def build(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(random_models, "build_random_models", build)
    with pytest.raises(MachineError) as caught:
        find(told, tmp_path)
    assert caught.value.values == {"path": str(tmp_path / "random"), "reason": "Permission denied"}

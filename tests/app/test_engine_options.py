"""Which models serve when nobody names a folder."""

import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.events import Notice
from tests.support.tiny import MODELS
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.engine_options import DEMO, default_models
from webui.eichi_utils.jobs.runner import EngineOptions


def find(home: Path, *caches: Path) -> tuple[Path, list[Notice]]:
    """The transformer's folder, and what was told."""
    told: list[Notice] = []
    search = default_models(ModelFolders(None, home / "hf_download", caches))
    try:
        while True:
            told.append(next(search))
    except StopIteration as end:
        return end.value.transformer.folder, told


def options(home: Path, models: Path | None = None) -> EngineOptions:
    return EngineOptions(models, home / "cache", "cpu", None, downloaded=home / "hf_download")


@pytest.fixture(autouse=True)
def no_caches(tmp_path, monkeypatch) -> None:
    """Whoever runs the tests may have downloaded models."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "no cache"))


def test_the_download_is_taken_without_a_word(tmp_path):
    shutil.copytree(MODELS, tmp_path / "hf_download")
    folder, told = find(tmp_path)
    assert folder.is_relative_to(tmp_path / "hf_download")
    assert told == []
    assert not options(tmp_path).uses_demo


def test_models_that_another_program_downloaded_are_used_where_they_are(tmp_path):
    shutil.copytree(MODELS, tmp_path / "huggingface")
    folder, told = find(tmp_path, tmp_path / "huggingface")
    assert folder.is_relative_to(tmp_path / "huggingface")
    assert told == []
    assert not (tmp_path / "hf_download").exists()


@pytest.mark.parametrize("folder_exists", [True, False])
def test_without_a_download_the_demos_models_serve_and_this_is_told(tmp_path, folder_exists):
    if folder_exists:
        (tmp_path / "hf_download").mkdir()
    folder, told = find(tmp_path)
    assert folder.is_relative_to(DEMO)
    assert told == [Notice("demo_models", {"path": str(tmp_path / "hf_download")})]
    assert options(tmp_path).uses_demo


def test_half_a_download_is_named_and_not_replaced_by_the_demo(tmp_path):
    blobs = tmp_path / "hf_download" / "hub" / "models--lllyasviel--FramePackI2V_HY" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "123.incomplete").write_bytes(b"half")
    with pytest.raises(InputError) as caught:
        find(tmp_path)
    assert caught.value.code == "model_missing"
    assert not options(tmp_path).uses_demo


@pytest.mark.parametrize(("models", "is_demo"), [(DEMO, True), (MODELS, False)])
def test_a_folder_that_is_named_is_the_demo_only_if_it_is_the_demos(tmp_path, models, is_demo):
    assert options(tmp_path, models).uses_demo == is_demo

"""The models that are used when the command line names no folder."""

import os
import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.events import Notice
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS
from webui.eichi_utils.engine_options import DEMO, EngineOptions


def find(home: Path) -> tuple[Path, list[Notice]]:
    """The transformer's folder, and the notices."""
    notices: list[Notice] = []
    search = options(home).find_models()
    try:
        while True:
            notices.append(next(search))
    except StopIteration as end:
        return end.value.transformer.folder, notices


def options(home: Path, models: Path | None = None, **values: bool) -> EngineOptions:
    return EngineOptions(models, home / "cache", "cpu", None, home / "hf_download", **values)


def eight_bit_roots(home: Path, models: Path | None, files: Path) -> tuple[Path, ...]:
    chosen = options(home, models, eight_bit=True)
    return chosen.config_of(find_models(files)).eight_bit_roots


@pytest.fixture(autouse=True)
def no_caches(tmp_path, monkeypatch) -> None:
    """Whoever runs the tests may have downloaded models."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "no cache"))


@pytest.mark.parametrize("owner", ["hf_download", "huggingface"])
def test_models_are_used_where_they_are_without_a_word(tmp_path, monkeypatch, owner):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    models = shutil.copytree(MODELS, tmp_path / owner)
    folder, notices = find(tmp_path)
    assert folder.is_relative_to(models)
    assert notices == []
    assert not options(tmp_path).uses_demo
    assert [path.name for path in tmp_path.iterdir()] == [owner]


@pytest.mark.parametrize("folder_exists", [True, False])
def test_without_a_download_the_demo_is_used_and_reported(tmp_path, folder_exists):
    if folder_exists:
        (tmp_path / "hf_download").mkdir()
    folder, notices = find(tmp_path)
    assert folder.is_relative_to(DEMO)
    assert notices == [Notice("demo_models", {"path": str(tmp_path / "hf_download")})]
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


def test_8_bit_weights_lie_beside_models_that_the_app_downloads(tmp_path):
    models = Path(shutil.copytree(MODELS, tmp_path / "hf_download"))
    cached = tmp_path / "cache" / "eight_bit" / "models"
    assert eight_bit_roots(tmp_path, None, models) == (models, cached)
    assert eight_bit_roots(tmp_path / "other", models, models)[0] == models
    assert options(tmp_path).config_of(find_models(models)).eight_bit_roots == ()


def test_models_that_are_not_ours_get_no_8_bit_weights_beside_them(tmp_path):
    cache = tmp_path / "cache" / "eight_bit"
    assert eight_bit_roots(tmp_path, None, MODELS) == (cache / "models",)
    assert eight_bit_roots(tmp_path, DEMO, DEMO) == (cache / "demo",)
    relative = Path(os.path.relpath(DEMO))
    assert eight_bit_roots(tmp_path, relative, relative) == (cache / "demo",)


def test_a_jobs_own_choice_of_weights_counts_before_that_of_the_command_line(tmp_path):
    files = find_models(MODELS)
    for given, chosen, is_fast in [(True, False, False), (False, True, True), (True, None, True)]:
        config = options(tmp_path, eight_bit=given).config_of(files, chosen)
        assert bool(config.eight_bit_roots) is is_fast


def test_the_room_for_8_bit_weights_is_known_for_the_models_in_use(tmp_path):
    models = Path(shutil.copytree(MODELS, tmp_path / "models"))
    folder, num_bytes = options(tmp_path, models).room_for_eight_bit()
    assert folder == models / "lllyasviel" / "FramePackI2V_HY-8bit"
    assert num_bytes > 2**20
    with pytest.raises(InputError):
        options(tmp_path, tmp_path / "none").room_for_eight_bit()

"""Folders and models in any state."""

import json
import os
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.weights.contents import record_in
from tests.support.tiny import LAST_SHARD, MODELS, VAE_FILE
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.machine import disk
from webui.eichi_utils.machine.disk import inspect_folder, inspect_models, read_speed


def test_a_file_of_fewer_bits_is_a_reason_even_where_nothing_else_is_there(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "llava-llama-3-8b-Q4.gguf").touch()
    facts = inspect_models(ModelFolders(None, tmp_path))
    assert facts.error is not None
    assert (facts.state, facts.error.code) == ("partly", "model_file_reduced")


def test_a_missing_folder_has_the_free_space_of_its_parent(tmp_path):
    facts = inspect_folder(tmp_path / "new" / "outputs")
    assert facts.path == tmp_path / "new" / "outputs"
    assert facts.free
    assert facts.writable
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "field", "value"),
    [("shutil.disk_usage", "free", None), ("tempfile.TemporaryFile", "writable", False)],
)
def test_a_folder_that_refuses_is_reported(tmp_path, monkeypatch, call, field, value):
    monkeypatch.setattr(call, Mock(side_effect=PermissionError("denied")))
    assert getattr(inspect_folder(tmp_path), field) is value


def test_complete_models_have_a_size_and_a_speed(monkeypatch):
    monkeypatch.setattr(disk, "DEMO_BYTES", 0)
    monkeypatch.setattr(disk, "SAMPLE_BYTES", 100)
    facts = inspect_models(ModelFolders(None, MODELS))
    everything = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    assert facts.state == "complete"
    assert 0.5 * everything < facts.num_bytes <= everything
    assert facts.bytes_per_second


@pytest.mark.parametrize(
    ("folder", "state", "code"),
    [
        ("none", "missing", "model_missing"),
        ("cut", "partly", "model_file_cut_short"),
        ("blank", "partly", "weights_blank"),
        (MODELS, "demo", None),
    ],
)
def test_models_in_any_state_are_reported_with_their_error(tmp_path, folder, state, code):
    shutil.copytree(MODELS, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / LAST_SHARD, 10)
    blank = shutil.copytree(MODELS, tmp_path / "blank") / VAE_FILE
    header = blank.read_bytes()[: 8 + int.from_bytes(blank.read_bytes()[:8], "little")]
    blank.write_bytes(header.ljust(blank.stat().st_size, b"\0"))
    facts = inspect_models(ModelFolders(None, tmp_path / folder))
    assert (facts.state, facts.error and facts.error.code) == (state, code)
    assert facts.folder.free is not None


def test_files_that_hold_weights_are_remembered_in_the_apps_cache(tmp_path):
    models, cache = shutil.copytree(MODELS, tmp_path / "models"), tmp_path / "cache"
    files = sorted(models.rglob("*.safetensors"))
    for path in files:
        os.utime(path, (1e9, 1e9))
    inspect_models(ModelFolders(None, models), cache)
    assert sorted(json.loads(record_in(cache).read_text("utf-8"))) == list(map(str, files))


def test_models_that_do_not_belong_together_are_incomplete(monkeypatch):
    monkeypatch.setattr(disk, "find_models_in", Mock(side_effect=InputError("models_do_not_fit")))
    assert inspect_models(ModelFolders(None, MODELS)).state == "partly"


@pytest.mark.parametrize(("seconds", "slower"), [([0.1, 0.001] * 8, 0.1), ([1.0, 1.0], 1.0)])
def test_a_disk_is_measured_briefly_and_the_slower_half_counts(tmp_path, monkeypatch, seconds, slower):
    (tmp_path / "a").write_bytes(bytes(2 * disk.SAMPLES))
    monkeypatch.setattr(disk, "SAMPLE_BYTES", 1)
    clock = iter([time for second in seconds for time in (0.0, second)])
    monkeypatch.setattr(disk, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert read_speed([tmp_path / "a"]) == pytest.approx(1 / slower)
    assert not list(clock), "as many samples as that were taken"


@pytest.mark.parametrize("paths", [[], ["gone"], ["small"]])
def test_unreadable_files_have_no_speed(tmp_path, paths):
    (tmp_path / "small").write_bytes(b"x" * 10)
    assert read_speed([tmp_path / path for path in paths]) is None


@pytest.mark.parametrize(
    ("variables", "path", "lies_in"),
    [
        ({}, "OneDrive/app", False),
        ({"OneDrive": "OneDrive"}, "OneDrive/Desktop/app/webui/hf_download", True),
        ({"OneDrive": "OneDrive"}, "OneDrive", True),
        ({"OneDrive": "OneDrive"}, "OneDrive2/app", False),
        ({"OneDrive": ""}, "app", False),
        ({"OneDrive": "OneDrive", "OneDriveCommercial": "OneDrive - Work"}, "OneDrive - Work/app", True),
        ({"OneDrive": "OneDrive"}, "link/app", True),
    ],
)
def test_a_folder_that_onedrive_uploads_is_known(tmp_path, monkeypatch, variables, path, lies_in):
    for name in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value else "")
    (tmp_path / "OneDrive").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "OneDrive")
    assert inspect_folder(tmp_path / path).in_onedrive is lies_in

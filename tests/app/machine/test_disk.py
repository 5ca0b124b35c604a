"""Folders and models in any state."""

import shutil
import sys
from types import SimpleNamespace

import pytest

from tests.support.tiny import LAST_SHARD, MODELS
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.machine import disk
from webui.eichi_utils.machine.disk import inspect_folder, inspect_models, read_speed

MIB = 2**20


def test_a_missing_folder_has_the_free_space_of_its_parent(tmp_path):
    facts = inspect_folder(tmp_path / "new" / "outputs")
    assert facts.path == tmp_path / "new" / "outputs"
    assert facts.free is not None
    assert facts.free > 0
    assert facts.writable
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "field", "value"),
    [("shutil.disk_usage", "free", None), ("tempfile.TemporaryFile", "writable", False)],
)
def test_a_folder_that_refuses_is_reported(tmp_path, monkeypatch, call, field, value):
    def refuse(*_, **__):
        raise PermissionError("denied")

    monkeypatch.setattr(call, refuse)
    assert getattr(inspect_folder(tmp_path), field) is value


def test_complete_models_that_are_tiny_are_the_demo():
    facts = inspect_models(ModelFolders(None, MODELS))
    assert (facts.state, facts.error) == ("demo", None)


def test_complete_models_have_a_size_and_a_speed(monkeypatch):
    monkeypatch.setattr(disk, "DEMO_BYTES", 0)
    monkeypatch.setattr(disk, "SAMPLE_BYTES", 100)
    facts = inspect_models(ModelFolders(None, MODELS))
    everything = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())
    assert facts.state == "complete"
    assert 0.5 * everything < facts.num_bytes <= everything
    assert facts.bytes_per_second is not None
    assert facts.bytes_per_second > 0


@pytest.mark.parametrize("name", ["empty", "not there"])
def test_no_models_are_missing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    facts = inspect_models(ModelFolders(None, tmp_path / name))
    assert (facts.state, facts.num_bytes) == ("missing", 0)
    assert facts.folder.free is not None


def test_models_cut_short_are_reported_with_the_error(tmp_path):
    shutil.copytree(MODELS, tmp_path / "models")
    shard = tmp_path / "models" / LAST_SHARD
    shard.write_bytes(shard.read_bytes()[:-10])
    facts = inspect_models(ModelFolders(None, tmp_path / "models"))
    assert facts.state == "partly"
    assert facts.error is not None
    assert facts.error.code == "model_file_cut_short"


def test_a_begun_download_counts_with_its_bytes(tmp_path):
    name = "diffusion_pytorch_model-00001-of-00003.safetensors.0123456789ab.part"
    part = tmp_path / "lllyasviel" / "FramePackI2V_HY" / name
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    (tmp_path / "hub" / "models--other--model").mkdir(parents=True)
    (tmp_path / "hub" / "models--other--model" / "big").write_bytes(b"x" * 9999)
    facts = inspect_models(ModelFolders(None, tmp_path))
    assert (facts.state, facts.num_bytes) == ("partly", 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs rights there")
def test_linked_files_of_a_cache_count_once(tmp_path):
    base = tmp_path / "models--lllyasviel--FramePackI2V_HY"
    (base / "blobs").mkdir(parents=True)
    (base / "blobs" / "abc").write_bytes(b"x" * 1000)
    (base / "snapshots" / "1").mkdir(parents=True)
    (base / "snapshots" / "1" / "config.json").symlink_to(base / "blobs" / "abc")
    assert inspect_models(ModelFolders(None, tmp_path)).num_bytes == 1000


def test_the_speed_is_that_of_the_slower_half(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"")
    monkeypatch.setattr(disk, "_time_samples", lambda _: [0.1, 0.001] * 8)
    assert read_speed([file]) == pytest.approx(disk.SAMPLE_BYTES / 0.1)


def test_a_slow_disk_is_measured_only_briefly(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    file.write_bytes(bytes(2 * disk.SAMPLES))
    monkeypatch.setattr(disk, "SAMPLE_BYTES", 1)
    clock = iter(range(1000))
    monkeypatch.setattr(disk, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert list(disk._time_samples(file)) == [1.0, 1.0]


@pytest.mark.parametrize("paths", [[], ["gone"], ["small"]])
def test_unreadable_files_have_no_speed(tmp_path, paths):
    (tmp_path / "small").write_bytes(b"x" * 10)
    assert read_speed([tmp_path / path for path in paths]) is None

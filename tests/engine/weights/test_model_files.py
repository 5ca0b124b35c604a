"""Models are found in plain folders and in every form of a Hugging Face cache, and checked."""

import errno
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.weights.checkpoint import Checkpoint, weight_files
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, ModelFiles, find_models
from tests.support.tiny import MODELS

REPOSITORIES = (HUNYUAN, FLUX_REDUX, FRAMEPACK)
REVISION, OLDER = "e8c2aaa66fe3742a32c11a6766aecbf07c56e773", "0123456789abcdef0123456789abcdef01234567"


def base_folder(hub: Path, repository: str) -> Path:
    return hub / f"models--{repository.replace('/', '--')}"


def fill_snapshot(hub: Path, repository: str, revision: str, *, links: bool) -> Path:
    """A snapshot of the tiny models: links to blobs, as on Linux, or real files, as on Windows."""
    base = base_folder(hub, repository)
    for source in sorted((MODELS / repository).rglob("*")):
        if source.is_file():
            target = base / "snapshots" / revision / source.relative_to(MODELS / repository)
            target.parent.mkdir(parents=True, exist_ok=True)
            if links:
                blob = base / "blobs" / str(abs(hash(source)))
                blob.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, blob)
                target.symlink_to(os.path.relpath(blob, target.parent))
            else:
                shutil.copyfile(source, target)
    return base / "snapshots" / revision


def make_cache(hub: Path, *, links: bool = True, refs: bool = True) -> Path:
    """A cache of the tiny models, with files that are none of theirs."""
    for repository in REPOSITORIES:
        fill_snapshot(hub, repository, REVISION, links=links)
        if refs:
            set_main(hub, repository, REVISION)
        base = base_folder(hub, repository)
        (base / "snapshots" / ".DS_Store").write_text("")
        (base / "snapshots" / "dangling").symlink_to("nowhere")
        (base / ".no_exist" / REVISION).mkdir(parents=True)
    (hub / "models--other--Model" / "snapshots").mkdir(parents=True)
    return hub


def set_main(hub: Path, repository: str, revision: str) -> None:
    path = base_folder(hub, repository) / "refs" / "main"
    path.parent.mkdir(exist_ok=True)
    path.write_text(revision)


def folders(files: ModelFiles) -> set[Path]:
    parts = vars(files).values()
    return {part.folder for part in parts} | {part.processor for part in parts if part.processor}


def rejection(root: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        find_models(root)
    return caught.value


def test_plain_folders_are_found():
    files = find_models(MODELS)
    assert files.transformer.folder == MODELS / FRAMEPACK
    assert files.text_encoder.folder == MODELS / HUNYUAN / "text_encoder"
    assert files.text_encoder.processor == MODELS / HUNYUAN / "tokenizer"
    assert files.image_encoder.processor == MODELS / FLUX_REDUX / "feature_extractor"
    assert files.vae.processor is None
    assert files.vae.config["latent_channels"] == 16
    assert len({stored.path for stored in files.transformer.checkpoint.tensors.values()}) == 6


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("refs", [True, False])
@pytest.mark.parametrize("below", ["hub", ""])
def test_a_cache_is_found_from_its_root_and_from_hub(tmp_path, links, refs, below):
    hub = make_cache(tmp_path / below, links=links, refs=refs)
    for root in {tmp_path, hub}:
        found = folders(find_models(root))
        assert len(found) == 8
        assert all(folder.is_relative_to(hub) and REVISION in folder.parts for folder in found)


@pytest.mark.parametrize("refs", [True, False])
def test_the_snapshot_of_main_comes_first_else_the_newest(tmp_path, refs):
    hub = make_cache(tmp_path / "hub", refs=refs)
    other = fill_snapshot(hub, FRAMEPACK, OLDER, links=True)
    for time, revision in ((10**9, REVISION), (2**31, REVISION if refs else OLDER)):
        os.utime(other, (time, time))
        assert revision in find_models(tmp_path).transformer.folder.parts


@pytest.mark.parametrize(
    "damage", ["config.json", "diffusion_pytorch_model.safetensors.index.json", "dangling", "cut", "empty"]
)
def test_a_complete_older_snapshot_replaces_an_incomplete_one(tmp_path, damage):
    hub = make_cache(tmp_path / "hub")
    newest = fill_snapshot(hub, FRAMEPACK, OLDER, links=False)
    set_main(hub, FRAMEPACK, OLDER)
    shard = newest / "diffusion_pytorch_model-00002-of-00006.safetensors"
    if damage == "empty":
        shutil.rmtree(newest)
        newest.mkdir()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "dangling":
        shard.unlink()
        shard.symlink_to("../../blobs/gone")
    else:
        (newest / damage).unlink()
    assert REVISION in find_models(tmp_path).transformer.folder.parts


@pytest.mark.parametrize("target", [None, "nowhere", "config.json"], ids=["missing", "dangling", "itself"])
def test_of_incomplete_snapshots_the_likeliest_one_is_named(tmp_path, target):
    hub = make_cache(tmp_path / "hub")
    fill_snapshot(hub, FRAMEPACK, OLDER, links=True)
    for revision in (REVISION, OLDER):
        config = base_folder(hub, FRAMEPACK) / "snapshots" / revision / "config.json"
        config.unlink()
        if target is not None:
            config.symlink_to(target)
    error = rejection(tmp_path)
    assert error.code == "model_file_missing"
    assert REVISION in str(error.values["path"])
    assert str(error.values["path"]).endswith("config.json")


def test_plain_folders_and_a_cache_complete_each_other(tmp_path):
    hub = make_cache(tmp_path / "hub")
    shutil.rmtree(base_folder(hub, FRAMEPACK))
    assert rejection(tmp_path).code == "model_missing"
    shutil.copytree(MODELS / FRAMEPACK, tmp_path / FRAMEPACK)
    assert find_models(tmp_path).transformer.folder == tmp_path / FRAMEPACK


def test_the_models_of_a_repository_may_lie_in_two_snapshots(tmp_path):
    hub = make_cache(tmp_path / "hub")
    other = fill_snapshot(hub, HUNYUAN, OLDER, links=True)
    for name in ("vae", "tokenizer_2"):
        shutil.rmtree(other / name)
    shutil.rmtree(base_folder(hub, HUNYUAN) / "snapshots" / REVISION / "text_encoder")
    files = find_models(tmp_path)
    assert OLDER in files.text_encoder.folder.parts
    assert REVISION in files.vae.folder.parts


def test_a_tokenizer_may_lie_in_its_older_files(tmp_path):
    models = shutil.copytree(MODELS, tmp_path / "models")
    tokenizer = models / HUNYUAN / "tokenizer_2"
    merges = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))["model"]
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(merges["vocab"]), "utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    assert find_models(models).text_encoder_2.processor == tokenizer


def test_a_models_files_are_all_that_decide_its_output():
    names = {path.name for path in find_models(MODELS).text_encoder.files}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert "model-00008-of-00008.safetensors" in names


def test_an_index_comes_before_a_single_file(tmp_path):
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, name in zip(["model.safetensors", *shards], "aab", strict=True):
        save_file({name: np.zeros(3, np.uint8)}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"b": shards[1], "a": shards[0]}})
    )
    assert [path.name for path in weight_files(tmp_path)] == shards
    assert set(Checkpoint.open(tmp_path).tensors) == {"a", "b"}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("how", ["open", "read_text"], ids=["weights", "config"])
def test_where_nothing_opens_the_machine_is_at_fault_and_not_the_files(monkeypatch, number, how):
    monkeypatch.setattr(Path, how, Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(MachineError, match="model_file_unreadable"):
        find_models(MODELS)


def test_a_file_without_tensors_is_complete(tmp_path):
    save_file({}, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).tensors == {}

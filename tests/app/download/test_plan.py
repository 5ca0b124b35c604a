"""Only what is missing is planned, with its size and the room on the disk."""

import os
import shutil
from pathlib import PurePosixPath

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN, PARTS
from tests.support.fake_hub import ALL_BYTES
from tests.support.tiny import MODELS, VAE_FILE
from webui.eichi_utils.download import plan as plan_module
from webui.eichi_utils.download.model_folders import may_be_part_of
from webui.eichi_utils.download.plan import (
    RESERVE,
    DownloadPlan,
    RemoteFile,
    check_room,
    files_of,
    make_plan,
    part_path,
)

VAE_BYTES = (MODELS / VAE_FILE).stat().st_size


def list_files(repository: str) -> list[RemoteFile]:
    base = MODELS / repository
    files = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
    return [RemoteFile(repository, name, path.stat().st_size) for name, path in files.items()]


@pytest.mark.parametrize(("check", "left"), [(False, VAE_BYTES), (False, 5000), (True, VAE_BYTES)])
def test_what_is_there_counts_and_a_check_adds_the_apps_own_files(folders, check, left):
    shutil.copytree(MODELS, folders.caches[0])
    shutil.rmtree(folders.caches[0] / HUNYUAN)
    shutil.copytree(MODELS / HUNYUAN, folders.own / HUNYUAN)
    vae = folders.own / VAE_FILE
    if left < VAE_BYTES:
        part = part_path(vae, RemoteFile(HUNYUAN, "", VAE_BYTES))
        vae.rename(part)
        os.truncate(part, left)
    plan = make_plan(folders, list_files, check=check)
    assert (plan.total_bytes, plan.needed_bytes) == (ALL_BYTES, VAE_BYTES - left)
    present = {file.name: num_bytes for file, num_bytes in plan.present.items()}
    assert present.get(VAE_FILE) == (left if check or left < VAE_BYTES else None)
    assert not any(FRAMEPACK in name for name in present)


@pytest.mark.parametrize(
    ("needed", "free", "fits"),
    [(10**8, 10**9, False), (10**8, 10**8 + RESERVE, True), (0, 0, True), (1, RESERVE, False)],
)
def test_the_disk_needs_room_and_some_to_spare(tmp_path, monkeypatch, needed, free, fits):
    monkeypatch.setattr(plan_module, "free_bytes", lambda _: free)
    plan = DownloadPlan({RemoteFile("a/b", "c", needed): 0}, 10**9)
    if fits:
        return check_room(plan, tmp_path)
    with pytest.raises(MachineError) as caught:
        check_room(plan, tmp_path)
    assert caught.value.code == "download_disk_too_small"
    gigabytes = {"needed": f"{(needed + RESERVE) / 1e9:.1f}", "free": f"{free / 1e9:.1f}"}
    assert caught.value.values == gigabytes | {"path": str(tmp_path)}


# -- which files are needed ------------------------------------------------------------------------------

TEXT_ENCODER = [
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
]
TEXT_ENCODER_2 = [
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
]
VAE = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
OTHERS = [
    ".gitattributes",
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model-q8_0.gguf",
    "text_encoder/model.fp16.safetensors.index.json",
    "text_encoder/model.fp16-00001-of-00001.safetensors",
    "text_encoder_2/flax_model.msgpack",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
]
ALL = sorted([*TEXT_ENCODER, *TEXT_ENCODER_2, *VAE, *OTHERS])


def chosen(part: str, names: list[str]) -> list[str]:
    repository = PARTS[part].repository
    return [file.path for file in files_of(PARTS[part], [RemoteFile(repository, name, 1) for name in names])]


@pytest.mark.parametrize(
    ("part", "files"), [("text_encoder", TEXT_ENCODER), ("text_encoder_2", TEXT_ENCODER_2), ("vae", VAE)]
)
def test_a_part_has_one_format_and_its_weights_come_last(part, files):
    assert chosen(part, ALL) == files
    assert {path for path in ALL if may_be_part_of(PARTS[part], PurePosixPath(path))} == set(files)


def test_the_transformer_lies_at_the_top_of_its_repository():
    names = ["config.json", "diffusion_pytorch_model.safetensors.index.json"]
    names += [f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    others = ["README.md", "diffusion_pytorch_model-00001-of-00006.safetensors", "old/config.json"]
    assert chosen("transformer", names + others) == names


def test_an_incomplete_series_of_shards_is_refused():
    names = ["config.json", "diffusion_pytorch_model.safetensors.index.json"]
    names += ["diffusion_pytorch_model-00001-of-00002.safetensors"]
    with pytest.raises(MachineError, match="download_repository_changed"):
        chosen("transformer", names)


@pytest.mark.parametrize(
    ("part", "lost"),
    [("vae", VAE[0]), ("text_encoder_2", TEXT_ENCODER_2[-1]), ("text_encoder", TEXT_ENCODER[1])],
)
def test_a_repository_without_a_needed_file_is_refused(part, lost):
    with pytest.raises(MachineError) as caught:
        chosen(part, [name for name in ALL if name != lost])
    assert caught.value.code == "download_repository_changed"
    assert caught.value.values == {"repository": HUNYUAN, "file": lost}

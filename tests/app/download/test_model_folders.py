"""Models are found in every folder, part by part, and used where they are."""

import errno
import os
import shutil
from pathlib import Path, PurePosixPath
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN, PARTS
from tests.support.fake_hub import ALL_BYTES
from tests.support.tiny import MODELS, VAE_FILE
from webui.eichi_utils.download.model_folders import (
    CACHE_VARIABLES,
    ModelFolders,
    PartView,
    RemoteFile,
    files_of,
    find_models_in,
    may_be_part_of,
    take_inventory,
)


@pytest.fixture
def folders(tmp_path) -> ModelFolders:
    return ModelFolders(tmp_path / "given", tmp_path / "own", (tmp_path / "cache",))


def view(folders: ModelFolders, name: str) -> PartView:
    return next(part for part in take_inventory(folders).parts if part.name == name)


def copy(repository: str, root: Path) -> Path:
    return Path(shutil.copytree(MODELS / repository, root / repository))


def copy_to_cache(repository: str, hub: Path) -> Path:
    base = hub / f"models--{repository.replace('/', '--')}"
    return Path(shutil.copytree(MODELS / repository, base / "snapshots" / "c0ffee"))


def test_a_complete_set_is_complete_and_empty_folders_have_nothing(folders):
    inventory = take_inventory(folders)
    assert (inventory.state, inventory.num_bytes) == ("missing", 0)
    assert view(folders, "vae") == PartView("vae", "missing", None, 0)
    inventory = take_inventory(ModelFolders(None, MODELS, folders.caches))
    assert (inventory.state, inventory.num_bytes) == ("complete", ALL_BYTES)


def test_models_of_which_no_file_opens_now_are_not_there(monkeypatch):
    monkeypatch.setattr(Path, "open", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
    assert take_inventory(ModelFolders(None, MODELS)).state == "partly"


def test_each_part_is_found_in_whichever_folder_has_it(folders):
    copy(HUNYUAN, folders.own)
    copy(FLUX_REDUX, folders.given)
    snapshot = copy_to_cache(FRAMEPACK, folders.caches[0] / "hub")
    assert take_inventory(folders).state == "complete"
    assert view(folders, "transformer").folder == snapshot
    files = find_models_in(folders)
    assert files.vae.folder == folders.own / HUNYUAN / "vae"
    assert files.image_encoder.folder == folders.given / FLUX_REDUX / "image_encoder"
    assert files.transformer.folder == snapshot


def test_the_given_folder_is_first_and_the_caches_are_last(folders):
    roots = (folders.given, folders.own, folders.caches[0])
    for root in roots:
        copy(FLUX_REDUX, root)
    for root in roots:
        assert view(folders, "image_encoder").folder.is_relative_to(root)
        shutil.rmtree(root)


def test_a_part_that_is_cut_short_is_taken_from_another_folder_and_a_missing_one_is_named(folders):
    copy(HUNYUAN, folders.own)
    os.truncate(folders.own / VAE_FILE, 1000)
    assert view(folders, "vae").state == "partly"
    with pytest.raises(InputError, match="model_file_cut_short"):  # rather than that another folder lacks it
        find_models_in(folders)
    copy(HUNYUAN, folders.caches[0])
    copy(FRAMEPACK, folders.own)
    with pytest.raises(InputError) as caught:
        find_models_in(folders)
    assert caught.value.code == "model_missing"
    assert caught.value.values == {"repository": FLUX_REDUX, "path": str(folders.given)}
    assert view(folders, "vae").folder.is_relative_to(folders.caches[0])
    assert view(folders, "text_encoder").folder.is_relative_to(folders.own)


def test_a_partial_download_is_counted_but_not_what_does_not_belong(folders):
    folder = folders.own / HUNYUAN / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "diffusion_pytorch_model.safetensors.0123456789ab.part").write_bytes(bytes(100))
    (folder / "diffusion_pytorch_model.bin").write_bytes(bytes(5000))
    snapshot = folders.caches[0] / f"models--{FRAMEPACK.replace('/', '--')}" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(folder / "diffusion_pytorch_model.bin")
    assert view(folders, "transformer").num_bytes == 5000
    assert view(folders, "vae") == PartView("vae", "partly", None, 102)
    assert take_inventory(folders).state == "partly"


def test_a_local_copy_has_the_same_length(folders):
    snapshot = copy_to_cache(HUNYUAN, folders.caches[0])
    copy(HUNYUAN, folders.own)
    os.truncate(folders.own / VAE_FILE, 1000)
    name = VAE_FILE.removeprefix(f"{HUNYUAN}/")
    size = (MODELS / VAE_FILE).stat().st_size
    assert folders.find_copy(RemoteFile(HUNYUAN, name, size)) == snapshot / name
    assert folders.find_copy(RemoteFile(HUNYUAN, name, size + 1)) is None


def test_a_folder_that_is_named_twice_is_searched_once_and_the_given_one_is_the_target(tmp_path):
    (tmp_path / "x").mkdir()
    folders = ModelFolders(tmp_path, tmp_path / "x" / "..", (tmp_path, tmp_path / "cache"))
    assert folders.roots == (tmp_path, tmp_path / "cache")
    assert (folders.target, ModelFolders(None, Path("own")).target) == (tmp_path, Path("own"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["~/.cache/huggingface"]),
        ({"HF_HOME": "/data/hf"}, ["/data/hf", "~/.cache/huggingface"]),
        ({"HF_HOME": ""}, ["~/.cache/huggingface"]),
        ({"XDG_CACHE_HOME": "/x"}, ["/x/huggingface"]),
        (
            {"HF_HOME": "/a", "HF_HUB_CACHE": "/b", "HUGGINGFACE_HUB_CACHE": "/b"},
            ["/b", "/a", "~/.cache/huggingface"],
        ),
    ],
)
def test_the_users_caches_are_those_of_hugging_face(monkeypatch, environment, expected):
    for name in (*CACHE_VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"HOME": "/home/cat", "USERPROFILE": "/home/cat"}).items():
        monkeypatch.setenv(name, value)
    roots = ModelFolders.of_user(None, Path("/own")).roots
    assert roots == tuple(Path(name.replace("~", "/home/cat")) for name in ["/own", *expected])


# -- which files are needed ------------------------------------------------------------------------------


def paths_of(**folders: str) -> list[str]:
    """Return the paths of files that are listed by their folders."""
    return [str(PurePosixPath(folder, name)) for folder, names in folders.items() for name in names.split()]


TEXT_ENCODER = paths_of(
    tokenizer="tokenizer_config.json tokenizer.json special_tokens_map.json",
    text_encoder="config.json model.safetensors.index.json model-00001-of-00002.safetensors "
    "model-00002-of-00002.safetensors",
)
TEXT_ENCODER_2 = paths_of(
    tokenizer_2="tokenizer_config.json special_tokens_map.json vocab.json merges.txt",
    text_encoder_2="config.json model.safetensors",
)
VAE = paths_of(vae="config.json diffusion_pytorch_model.safetensors")
OTHERS = paths_of(
    **{".": ".gitattributes README.md model_index.json"},
    scheduler="scheduler_config.json",
    text_encoder="pytorch_model.bin model.fp16.safetensors model-q8_0.gguf model.fp16.safetensors.index.json "
    "model.fp16-00001-of-00001.safetensors",
    text_encoder_2="flax_model.msgpack",
    transformer="config.json diffusion_pytorch_model-00001-of-00001.safetensors "
    "diffusion_pytorch_model.safetensors.index.json",
    vae="diffusion_pytorch_model.fp16.safetensors",
)
ALL = sorted([*TEXT_ENCODER, *TEXT_ENCODER_2, *VAE, *OTHERS])


def chosen(part: str, names: list[str]) -> list[str]:
    repository = PARTS[part].repository
    return [file.path for file in files_of(PARTS[part], [RemoteFile(repository, name, 1) for name in names])]


@pytest.mark.parametrize(
    ("part", "files"), [("text_encoder", TEXT_ENCODER), ("text_encoder_2", TEXT_ENCODER_2), ("vae", VAE)]
)
def test_a_part_has_one_format_and_its_weights_come_last(part, files):
    found = chosen(part, ALL)
    assert (set(found), found[-1]) == (set(files), files[-1])
    assert {path for path in ALL if may_be_part_of(PARTS[part], PurePosixPath(path))} == set(files)


def test_the_transformer_lies_at_the_top_of_its_repository():
    names = ["config.json", "diffusion_pytorch_model.safetensors.index.json"]
    names += [f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    others = ["README.md", "diffusion_pytorch_model-00001-of-00006.safetensors", "old/config.json"]
    assert chosen("transformer", names + others) == names
    with pytest.raises(MachineError, match="download_repository_changed"):  # an incomplete series
        chosen("transformer", names[:-1])


@pytest.mark.parametrize(
    ("part", "lost"),
    [("vae", VAE[0]), ("text_encoder_2", TEXT_ENCODER_2[-1]), ("text_encoder", TEXT_ENCODER[1])],
)
def test_a_repository_without_a_needed_file_is_refused(part, lost):
    with pytest.raises(MachineError) as caught:
        chosen(part, [name for name in ALL if name != lost])
    assert caught.value.code == "download_repository_changed"
    assert caught.value.values == {"repository": HUNYUAN, "file": lost}

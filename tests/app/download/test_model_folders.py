"""What is there already is found in every place, part by part, and used where it is."""

import os
import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN
from webui.eichi_utils.download.model_folders import (
    Inventory,
    ModelFolders,
    PartView,
    find_models_in,
    local_copies,
    take_inventory,
    user_caches,
)
from webui.eichi_utils.download.needed_files import RemoteFile

MODELS = Path(__file__).parents[2] / "golden" / "models"
VAE = f"{HUNYUAN}/vae/diffusion_pytorch_model.safetensors"


def part(seen: Inventory, name: str) -> PartView:
    return next(view for view in seen.parts if view.name == name)


def copy(repository: str, root: Path) -> Path:
    return Path(shutil.copytree(MODELS / repository, root / repository))


def copy_to_cache(repository: str, hub: Path) -> Path:
    base = hub / f"models--{repository.replace('/', '--')}"
    return Path(shutil.copytree(MODELS / repository, base / "snapshots" / "c0ffee"))


@pytest.fixture
def places(tmp_path) -> ModelFolders:
    return ModelFolders(tmp_path / "given", tmp_path / "own", (tmp_path / "cache",))


def test_a_complete_set_is_complete(tmp_path):
    seen = take_inventory(ModelFolders(None, MODELS, (tmp_path,)))
    assert seen.state == "complete"
    assert {view.root for view in seen.parts} == {MODELS}
    assert part(seen, "vae").folder == MODELS / HUNYUAN / "vae"
    files = (path for path in MODELS.rglob("*") if path.is_file())
    assert seen.num_bytes == sum(path.stat().st_size for path in files)


def test_where_nothing_is_all_is_missing(places):
    seen = take_inventory(places)
    assert seen.state == "missing"
    assert seen.num_bytes == 0
    assert part(seen, "vae") == PartView("vae", HUNYUAN, "missing", None, None, 0)


def test_each_part_is_found_in_whatever_place_has_it(places):
    copy(HUNYUAN, places.own)
    copy(FLUX_REDUX, places.given)
    copy_to_cache(FRAMEPACK, places.caches[0] / "hub")
    seen = take_inventory(places)
    assert seen.state == "complete"
    assert part(seen, "text_encoder").root == places.own
    assert part(seen, "image_encoder").root == places.given
    assert part(seen, "transformer").root == places.caches[0]
    files = find_models_in(places)
    assert files.vae.folder == places.own / HUNYUAN / "vae"
    assert files.transformer.folder.is_relative_to(places.caches[0])


def test_of_two_places_the_given_one_wins_and_the_caches_come_last(places):
    for root in (places.caches[0], places.own, places.given):
        copy(FLUX_REDUX, root)
    assert part(take_inventory(places), "image_encoder").root == places.given
    shutil.rmtree(places.given)
    assert part(take_inventory(places), "image_encoder").root == places.own


def test_a_part_that_is_cut_short_in_one_place_is_taken_from_another(places):
    copy(HUNYUAN, places.own)
    os.truncate(places.own / VAE, 1000)
    assert part(take_inventory(places), "vae").state == "partly"
    copy(HUNYUAN, places.caches[0])
    assert part(take_inventory(places), "vae").root == places.caches[0]
    assert part(take_inventory(places), "text_encoder").root == places.own


def test_half_a_part_is_counted_with_what_is_on_its_way(places):
    folder = places.own / HUNYUAN / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "diffusion_pytorch_model.safetensors.0123456789ab.part").write_bytes(bytes(100))
    (folder / "diffusion_pytorch_model.bin").write_bytes(bytes(5000))
    seen = take_inventory(places)
    assert part(seen, "vae") == PartView("vae", HUNYUAN, "partly", places.own, None, 102)
    assert seen.state == "partly"


def test_a_set_that_lacks_one_part_says_which(places):
    copy(HUNYUAN, places.own)
    copy(FRAMEPACK, places.own)
    with pytest.raises(InputError) as caught:
        find_models_in(places)
    assert caught.value.code == "model_missing"
    assert caught.value.values == {"repository": FLUX_REDUX, "path": str(places.given)}


def test_what_is_wrong_with_a_part_is_told_rather_than_that_another_place_lacks_it(places):
    copy(HUNYUAN, places.own)
    os.truncate(places.own / VAE, 1000)
    with pytest.raises(InputError) as caught:
        find_models_in(places)
    assert caught.value.code == "model_file_cut_short"


def test_a_copy_is_only_one_of_the_same_length(places):
    copy_to_cache(HUNYUAN, places.caches[0])
    copy(HUNYUAN, places.own)
    os.truncate(places.own / VAE, 1000)
    size = (MODELS / VAE).stat().st_size
    found = list(local_copies(places, RemoteFile(HUNYUAN, "vae/diffusion_pytorch_model.safetensors", size)))
    assert [path.is_relative_to(places.caches[0]) for path in found] == [True]


def test_a_place_that_is_named_twice_is_looked_at_once(tmp_path):
    places = ModelFolders(tmp_path, tmp_path / "x" / "..", (tmp_path, tmp_path / "cache"))
    (tmp_path / "x").mkdir()
    assert places.roots == (tmp_path, tmp_path / "cache")


def test_the_download_goes_to_the_given_folder_else_to_the_apps(places):
    assert places.target == places.given
    assert ModelFolders(None, places.own).target == places.own


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
def test_the_users_caches_are_where_huggingface_keeps_them(environment, expected):
    home = Path("/home/cat")
    assert user_caches(environment, home) == tuple(Path(name.replace("~", "/home/cat")) for name in expected)

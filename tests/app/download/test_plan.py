"""What is to be downloaded: only what lacks, told with its size, its place and the room there."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN
from tests.support.fake_hub import COMMIT, describe
from webui.eichi_utils.download import plan as download_plan
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.download.needed_files import Listing, RemoteFile
from webui.eichi_utils.download.plan import DownloadPlan, make_plan
from webui.eichi_utils.download_part import part_path

MODELS = Path(__file__).parents[2] / "golden" / "models"
SHARD = "diffusion_pytorch_model-00002-of-00006.safetensors"
ALL_BYTES = sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file())


def list_files(repository: str) -> Listing:
    """What the hub would tell of the tiny models."""
    base = MODELS / repository
    found = []
    for path in sorted(path for path in base.rglob("*") if path.is_file()):
        name = path.relative_to(base).as_posix()
        entry = describe(path, name)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if "lfs" in entry else None
        found.append(RemoteFile(repository, name, entry["size"], sha256, entry["blobId"]))
    return Listing(repository, COMMIT, tuple(found))


def unreachable(repository: str) -> Listing:
    raise AssertionError(f"{repository} is asked for")


def copy(repository: str, root: Path) -> Path:
    return Path(shutil.copytree(MODELS / repository, root / repository))


def sizes(plan: DownloadPlan) -> tuple[int, int, int]:
    return plan.total_bytes, plan.needed_bytes, plan.disk_bytes


@pytest.fixture
def places(tmp_path) -> ModelFolders:
    return ModelFolders(None, tmp_path / "own", (tmp_path / "cache",))


def test_where_nothing_is_all_is_needed(places):
    plan = make_plan(places, list_files)
    assert sizes(plan) == (ALL_BYTES, ALL_BYTES, ALL_BYTES)
    assert plan.target == places.own
    assert plan.free_bytes > 0
    names = {file.path.relative_to(places.own).as_posix() for file in plan.files}
    assert names == {path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*") if path.is_file()}
    assert {file.commit for file in plan.files} == {COMMIT}
    assert plan.files[0].remote.size < plan.files[-1].remote.size


def test_where_all_is_nothing_is_needed_and_nobody_is_asked(places):
    shutil.copytree(MODELS, places.caches[0])
    plan = make_plan(places, unreachable)
    assert plan.is_complete
    assert sizes(plan) == (ALL_BYTES, 0, 0)
    assert plan.files == ()
    assert plan.fits


def test_a_part_that_is_complete_elsewhere_is_not_brought(places):
    copy(FRAMEPACK, places.caches[0])
    plan = make_plan(places, list_files)
    own = sum(path.stat().st_size for path in (MODELS / FRAMEPACK).iterdir())
    assert sizes(plan) == (ALL_BYTES, ALL_BYTES - own, ALL_BYTES - own)
    assert {file.remote.repository for file in plan.files} == {HUNYUAN, FLUX_REDUX}


def test_whole_and_half_files_in_the_target_are_counted_as_there(places):
    copy(FRAMEPACK, places.caches[0])
    copy(FLUX_REDUX, places.caches[0])
    folder = copy(HUNYUAN, places.own)
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    size = vae.stat().st_size
    remote = next(file for file in list_files(HUNYUAN).files if file.path.startswith("vae/d"))
    vae.rename(part_path(vae, remote))
    os.truncate(part_path(vae, remote), 5000)
    plan = make_plan(places, list_files)
    assert sizes(plan) == (ALL_BYTES, size - 5000, size - 5000)
    by_name = {file.remote.path: file for file in plan.files}
    assert by_name["vae/config.json"].is_there
    assert by_name[remote.path].here == 5000


def test_whole_files_of_a_part_that_is_half_elsewhere_are_taken_from_there(places):
    folder = copy(FRAMEPACK, places.caches[0])
    (folder / SHARD).unlink()
    copy(HUNYUAN, places.own)
    copy(FLUX_REDUX, places.own)
    size = (MODELS / FRAMEPACK / SHARD).stat().st_size
    plan = make_plan(places, list_files)
    assert sizes(plan) == (ALL_BYTES, size, size)
    sources = {file.path.name: file.source for file in plan.files}
    assert sources[SHARD] is None
    assert sources["config.json"] == folder / "config.json"


def test_copies_on_another_disk_need_room_but_no_line(places, monkeypatch):
    folder = copy(FRAMEPACK, places.caches[0])
    (folder / SHARD).unlink()
    monkeypatch.setattr(download_plan, "_same_disk", lambda *_: False)
    plan = make_plan(places, list_files)
    others = sum(path.stat().st_size for path in folder.iterdir())
    assert sizes(plan) == (ALL_BYTES, ALL_BYTES - others, ALL_BYTES)


def test_a_check_also_plans_what_this_app_downloaded_but_not_the_users_caches(places):
    copy(HUNYUAN, places.own)
    copy(FRAMEPACK, places.caches[0])
    copy(FLUX_REDUX, places.caches[0])
    plan = make_plan(places, list_files, check=True)
    assert {file.remote.repository for file in plan.files} == {HUNYUAN}
    assert all(file.is_there for file in plan.files)
    assert sizes(plan) == (ALL_BYTES, 0, 0)


def test_a_disk_that_is_too_small_is_told_with_numbers(places, monkeypatch):
    monkeypatch.setattr(download_plan, "free_bytes", lambda _: 10**9)
    plan = make_plan(places, list_files)
    with pytest.raises(MachineError) as caught:
        plan.check_disk()
    assert caught.value.code == "download_disk_too_small"
    assert caught.value.values == {"needed": "1.1", "free": "1.0", "path": str(places.own)}


def test_a_disk_with_some_room_to_spare_is_large_enough(places, monkeypatch):
    monkeypatch.setattr(download_plan, "free_bytes", lambda _: ALL_BYTES + download_plan.RESERVE)
    plan = make_plan(places, list_files)
    plan.check_disk()
    assert plan.fits

"""Only what is missing is planned, with its size and the room on the disk."""

import os
import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN
from tests.support.fake_hub import ALL_BYTES, SHARD, SHARD_BYTES, describe
from tests.support.tiny import MODELS
from webui.eichi_utils.download import plan as plan_module
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import (
    RESERVE,
    DownloadPlan,
    check_room,
    free_bytes,
    make_plan,
    part_path,
)


def list_files(repository: str) -> list[RemoteFile]:
    base = MODELS / repository
    files = [(path, path.relative_to(base).as_posix()) for path in base.rglob("*") if path.is_file()]
    return [RemoteFile(repository, name, describe(path, name)["size"]) for path, name in files]


def unreachable(repository: str) -> list[RemoteFile]:
    raise AssertionError(f"{repository} is listed")


def copy(repository: str, root: Path) -> Path:
    return Path(shutil.copytree(MODELS / repository, root / repository))


def sizes(plan: DownloadPlan) -> tuple[int, int]:
    return plan.total_bytes, plan.needed_bytes


def test_empty_folders_need_everything_small_files_first(folders):
    plan = make_plan(folders, list_files)
    assert sizes(plan) == (ALL_BYTES, ALL_BYTES)
    names = {file.path.relative_to(folders.own).as_posix() for file in plan.files}
    assert names == {path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*") if path.is_file()}
    assert plan.files[0].remote.size < plan.files[-1].remote.size


def test_a_complete_set_needs_nothing_and_no_listing(folders):
    shutil.copytree(MODELS, folders.caches[0])
    plan = make_plan(folders, unreachable)
    assert (plan.files, *sizes(plan)) == ((), ALL_BYTES, 0)


def test_a_part_that_is_complete_elsewhere_is_not_planned(folders):
    copy(FRAMEPACK, folders.caches[0])
    plan = make_plan(folders, list_files)
    there = sum(path.stat().st_size for path in (MODELS / FRAMEPACK).iterdir())
    assert sizes(plan) == (ALL_BYTES, ALL_BYTES - there)
    assert {file.remote.repository for file in plan.files} == {HUNYUAN, FLUX_REDUX}


def test_complete_and_partial_files_in_the_target_count(folders):
    copy(FRAMEPACK, folders.caches[0])
    copy(FLUX_REDUX, folders.caches[0])
    vae = copy(HUNYUAN, folders.own) / "vae" / "diffusion_pytorch_model.safetensors"
    size = vae.stat().st_size
    part = part_path(vae, RemoteFile(HUNYUAN, "", size))
    vae.rename(part)
    os.truncate(part, 5000)
    plan = make_plan(folders, list_files)
    assert sizes(plan) == (ALL_BYTES, size - 5000)
    by_path = {file.path: file for file in plan.files}
    assert by_path[vae.with_name("config.json")].is_there
    assert (by_path[vae].is_there, by_path[vae].counted_bytes) == (False, 5000)


def test_complete_files_of_a_partial_cache_are_sources(folders):
    cached = copy(FRAMEPACK, folders.caches[0])
    (cached / SHARD).unlink()
    copy(HUNYUAN, folders.own)
    copy(FLUX_REDUX, folders.own)
    plan = make_plan(folders, list_files)
    assert sizes(plan) == (ALL_BYTES, SHARD_BYTES)
    sources = {file.path.name: file.source for file in plan.files}
    assert (sources[SHARD], sources["config.json"]) == (None, cached / "config.json")


def test_a_check_also_plans_the_apps_own_files_but_no_caches(folders):
    copy(HUNYUAN, folders.own)
    copy(FRAMEPACK, folders.caches[0])
    copy(FLUX_REDUX, folders.caches[0])
    plan = make_plan(folders, list_files, check=True)
    assert {(file.remote.repository, file.is_there) for file in plan.files} == {(HUNYUAN, True)}
    assert sizes(plan) == (ALL_BYTES, 0)


@pytest.mark.parametrize(
    ("needed", "free", "fits"),
    [(10**8, 10**9, False), (10**8, 10**8 + RESERVE, True), (0, 0, True), (1, RESERVE, False)],
)
def test_the_disk_needs_room_and_some_to_spare(tmp_path, monkeypatch, needed, free, fits):
    monkeypatch.setattr(plan_module, "free_bytes", lambda _: free)
    plan = DownloadPlan((), 10**9, needed)
    if fits:
        return check_room(plan, tmp_path)
    with pytest.raises(MachineError) as caught:
        check_room(plan, tmp_path)
    assert caught.value.code == "download_disk_too_small"
    gigabytes = {"needed": f"{(needed + RESERVE) / 1e9:.1f}", "free": f"{free / 1e9:.1f}"}
    assert caught.value.values == gigabytes | {"path": str(tmp_path)}


def test_a_folder_that_is_not_there_yet_has_the_room_of_its_disk(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)

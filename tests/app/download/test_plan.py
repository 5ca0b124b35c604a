"""Only what is missing is planned, with its size and the room on the disk."""

import os
import shutil
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FLUX_REDUX, FRAMEPACK, HUNYUAN
from tests.support.fake_hub import ALL_BYTES, describe
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


def copy(repository: str, root: Path) -> Path:
    return Path(shutil.copytree(MODELS / repository, root / repository))


def test_complete_and_partial_files_in_the_target_count(folders):
    copy(FRAMEPACK, folders.caches[0])
    copy(FLUX_REDUX, folders.caches[0])
    vae = copy(HUNYUAN, folders.own) / "vae" / "diffusion_pytorch_model.safetensors"
    size = vae.stat().st_size
    part = part_path(vae, RemoteFile(HUNYUAN, "", size))
    vae.rename(part)
    os.truncate(part, 5000)
    plan = make_plan(folders, list_files)
    assert (plan.total_bytes, plan.needed_bytes) == (ALL_BYTES, size - 5000)
    present = {file.path: num_bytes for file, num_bytes in plan.present.items()}
    assert present["vae/config.json"] == vae.with_name("config.json").stat().st_size
    assert present["vae/diffusion_pytorch_model.safetensors"] == 5000


def test_a_check_also_plans_the_apps_own_files_but_no_caches(folders):
    copy(HUNYUAN, folders.own)
    copy(FRAMEPACK, folders.caches[0])
    copy(FLUX_REDUX, folders.caches[0])
    plan = make_plan(folders, list_files, check=True)
    assert {file.repository for file in plan.present} == {HUNYUAN}
    assert (plan.total_bytes, plan.needed_bytes) == (ALL_BYTES, 0)


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


def test_a_folder_that_is_not_there_yet_has_the_room_of_its_disk(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)

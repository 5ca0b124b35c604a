"""Only what is missing is planned, with its size and the room on the disk."""

import os
import shutil

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.weights.model_files import FRAMEPACK, HUNYUAN
from tests.support.fake_hub import ALL_BYTES
from tests.support.tiny import MODELS, VAE_FILE
from webui.eichi_utils.download import plan as plan_module
from webui.eichi_utils.download.needed_files import RemoteFile
from webui.eichi_utils.download.plan import (
    RESERVE,
    DownloadPlan,
    check_room,
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

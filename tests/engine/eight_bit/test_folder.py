"""The folder of 8-bit weights: the room that it still needs, and what an earlier version left there."""

import shutil
from pathlib import Path

import pytest

from diffusers_helper.eight_bit import folder as eight_bit
from diffusers_helper.eight_bit.conversion import convert
from diffusers_helper.eight_bit.folder import (
    CONFIG,
    LOCK,
    MANIFEST,
    OutdatedWeights,
    delete_outdated,
    eight_bit_folder,
    find_outdated,
    is_converted,
    room_for_eight_bit,
)
from diffusers_helper.errors import InputError, MachineError
from diffusers_helper.files.exclusive_lock import exclusive_lock

SHARD = "diffusion_pytorch_model-00001-of-00008.safetensors"


@pytest.fixture
def outdated(source, models, monkeypatch) -> Path:
    """A folder that the version before this one has finished."""
    with monkeypatch.context() as patch:
        patch.setattr(eight_bit, "VERSION", eight_bit.VERSION - 1)
        for _progress in convert(source, eight_bit_folder(models)):
            pass
    return eight_bit_folder(models)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_room_is_what_is_not_finished(source, models, converted, tmp_path):
    cache = tmp_path / "cache"
    assert room_for_eight_bit(source, (models, cache)) == (converted, 0)
    whole = sum(path.stat().st_size for path in converted.glob("*.safetensors"))
    folder, room = room_for_eight_bit(source, (cache,))
    assert (folder, folder.exists()) == (eight_bit_folder(cache), False)
    assert whole - 50_000 < room - eight_bit.SPARE_BYTES < whole  # the files have headers
    shutil.rmtree(converted)
    progress = convert(source, converted)
    while (done := next(progress)[0]) < room // 2:
        pass
    progress.close()
    _, rest = room_for_eight_bit(source, (models,))
    assert room - done <= rest < room


def test_outdated_weights_are_found_and_used_by_nobody(source, models, outdated):
    num_bytes = sum(path.stat().st_size for path in outdated.iterdir() if path.name != LOCK)
    assert find_outdated(models) == OutdatedWeights(outdated, num_bytes)
    assert not is_converted(outdated, source)
    assert room_for_eight_bit(source, (models,))[1] > eight_bit.SPARE_BYTES


def test_all_that_the_earlier_version_wrote_is_deleted(models, outdated):
    (outdated / f"{SHARD}.part").write_bytes(b"half")
    (outdated / LOCK).touch()
    delete_outdated(outdated)
    assert not outdated.exists()
    assert outdated.parent.is_dir()
    assert find_outdated(models) is None


def test_nothing_else_is_deleted(models, outdated):
    others = {
        "mine.safetensors": b"mine",
        "diffusion_pytorch_model-00001-of-00099.safetensors": b"not recorded",
        "notes.part": b"mine",
        SHARD: b"another file of this name",
    }
    for name, content in others.items():
        (outdated / name).write_bytes(content)
    (outdated / "folder").mkdir()
    delete_outdated(outdated)
    assert names(outdated) == {*others, "folder"}
    assert {name: (outdated / name).read_bytes() for name in others} == others
    assert find_outdated(models) is None


@pytest.mark.parametrize("kind", ["current", "unsealed", "nothing"])
def test_what_is_not_outdated_stays(models, converted, kind):
    if kind == "unsealed":
        (converted / MANIFEST).write_bytes(b"x" + (converted / MANIFEST).read_bytes())
    elif kind == "nothing":
        (converted / MANIFEST).unlink()
    before = names(converted)
    assert find_outdated(models) is None
    delete_outdated(converted)
    assert names(converted) - {LOCK} == before - {LOCK}


def test_a_file_that_cannot_be_deleted_is_reported_and_found_again(models, outdated, monkeypatch):
    def refuse(path: Path) -> None:
        if path.name == CONFIG:
            raise PermissionError(13, "in use", str(path))
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(eight_bit, "delete_file", refuse)
        with pytest.raises(MachineError) as caught:
            delete_outdated(outdated)
    assert caught.value.code == "no_permission"
    assert find_outdated(models) is not None
    delete_outdated(outdated)
    assert not outdated.exists()


def test_a_running_conversion_keeps_them(outdated):
    before = names(outdated)
    with (
        exclusive_lock(outdated / LOCK, InputError("eight_bit_busy", path="")),
        pytest.raises(InputError) as caught,
    ):
        delete_outdated(outdated)
    assert caught.value.code == "eight_bit_busy"
    assert names(outdated) == before | {LOCK}

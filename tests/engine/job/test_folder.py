"""The sections that a job stores on the disk."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffusers_helper.errors import InputError
from diffusers_helper.files.checksummed import read_metadata, write_checksummed
from diffusers_helper.job.fingerprint import JobFingerprint
from diffusers_helper.job.folder import JobFolder, stored_fingerprint


@pytest.fixture
def folder(tmp_path):
    with JobFolder(tmp_path / "a.job", height=16, width=24, overlap=3) as folder:
        yield folder


def plain(count, value):
    return torch.full((count, 16, 24, 3), float(value))


def add(folder, frames, weights=()):
    list(folder.add_frames(frames, len(frames), weights))


def values(folder, *span):
    return [int(frame[0, 0, 0]) for frame in folder.frames(*span)]


FADE = (1, 0.5, 0)


def test_a_new_section_stands_in_front_and_fades_into_the_old_one(folder):
    add(folder, plain(4, 100))
    add(folder, plain(5, 199.6), FADE)  # is rounded, not truncated
    assert folder.num_frames == 6
    assert values(folder) == [200, 200, 200, 150, 100, 100]


def test_a_section_of_another_length_is_rejected(folder):
    add(folder, plain(4, 100))
    for count in (4, 6):
        with pytest.raises(ValueError, match="zip"):
            list(folder.add_frames(plain(5, 200), count, FADE))
    assert values(folder) == [100] * 4
    assert [path.name for path in folder.path.glob("*.part")] == []


def test_sections_may_share_different_numbers_of_frames(folder):
    add(folder, plain(8, 10))
    add(folder, plain(8, 50), (0.5,))
    add(folder, plain(8, 90), FADE)
    add(folder, plain(8, 130), (0.75, 0.25))
    whole = [130] * 6 + [120, 100] + [90] * 4 + [70] + [50] * 5 + [30] + [10] * 7
    assert values(folder) == whole
    assert folder.num_frames == len(whole)
    for start, stop in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
        assert values(folder, start, stop) == whole[start:stop]
    assert isinstance(next(folder.frames()), np.ndarray)


def test_latents_are_saved_in_the_order_of_the_video(folder, tmp_path):
    first, second = torch.randn(1, 16, 5, 2, 3), torch.randn(1, 16, 6, 2, 3)
    folder.add_latents(first, False, [1, 0])
    folder.add_latents(second, True, [1])
    folder.save_latents(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("latents"), torch.cat([second, first], dim=2))
        assert file.metadata() == {"transformer_evaluations": "[[1, 0], [1]]", "seed": "0"}


MARK = JobFingerprint(identity="a", models="m", seed=7)
CLOSINGS = (False, False, True)


@contextlib.contextmanager
def opened(path, mark=MARK, is_final=CLOSINGS):
    """A folder that is resumed, and the number of a damaged section."""
    with JobFolder(path, 16, 24, 3) as folder:
        yield folder, folder.resume(mark, is_final)


def add_sections(folder, count, final=()):
    for number in range(folder.num_latents, count):
        latents = torch.full((1, 16, 5, 2, 3), float(number))
        folder.add_latents(latents, number in final, [1, number])
        add(folder, plain(8, 10 * number), FADE if number else ())


@pytest.fixture
def two_sections(tmp_path):
    """A folder that an earlier run has left with two sections."""
    with opened(tmp_path / "b.job") as (folder, _):
        add_sections(folder, 2)
    return folder.path


def test_stored_sections_are_resumed(two_sections):
    with opened(two_sections) as (folder, damaged):
        assert damaged is None
        assert (folder.num_latents, folder.num_sections, folder.num_frames) == (2, 2, 13)
        assert values(folder) == [10] * 6 + [5] + [0] * 6
        assert torch.equal(folder.latents(1), torch.ones(1, 16, 5, 2, 3))
        add_sections(folder, 3)
        assert values(folder)[:7] == [20] * 6 + [15]


def test_sections_of_an_earlier_version_share_the_most_frames(two_sections):
    path = two_sections / "section_001.frames"
    metadata = read_metadata(path)
    size = metadata["frames"] * 16 * 24 * 3
    assert metadata.pop("shared") == 3
    write_checksummed(path, [path.read_bytes()[:size]], metadata)
    with opened(two_sections) as (folder, damaged):
        assert (damaged, folder.num_sections, folder.num_frames) == (None, 2, 13)
        folder.add_latents(torch.zeros(1, 16, 5, 2, 3), True, [1])
        add(folder, plain(8, 30), (0.5, 0.25))
        assert values(folder) == [30] * 6 + [20, 15] + [10] * 4 + [5] + [0] * 6


def test_frames_that_cannot_be_made_replace_nothing(two_sections):
    """Sections that cannot be used now stay until an intact one replaces them."""

    def fail():
        yield from plain(3, 7)
        raise torch.OutOfMemoryError("CUDA out of memory")

    def content():
        return {path.name: path.read_bytes() for path in two_sections.glob("section_*")}

    before = content()
    assert len(before) == 4
    with JobFolder(two_sections, 16, 24, 3) as folder:
        with pytest.raises(torch.OutOfMemoryError):
            list(folder.add_frames(fail(), 8))
        assert content() == before
        add(folder, plain(8, 7))
        assert sorted(content()) == ["section_000.frames", "section_000.latents", "section_001.latents"]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("section_001.latents", (1, 1, 1)),
        ("section_001.frames", (1, 2, 1)),
        ("section_000.latents", (0, 0, 0)),
    ],
)
def test_a_damaged_file_is_reported_and_deleted_and_nothing_behind_it_is_used(two_sections, name, counts):
    path = two_sections / name
    path.write_bytes(path.read_bytes()[:-1])
    with opened(two_sections) as (folder, damaged):
        assert (damaged, folder.num_latents, folder.num_sections) == counts
        assert not path.exists()


def test_of_damaged_files_alone_no_job_is_known(two_sections):
    for path in two_sections.glob("section_*"):
        path.write_bytes(b"x")
    assert stored_fingerprint(two_sections) is None


@pytest.mark.parametrize("other", [("b", "m", 7), ("a", "n", 7), ("a", "m", 8)])
def test_sections_of_another_job_are_not_used(two_sections, other):
    with JobFolder(two_sections, 16, 24, 3) as folder:
        assert stored_fingerprint(two_sections) == MARK
        folder.resume(JobFingerprint(*other), CLOSINGS)
        assert (folder.num_latents, folder.num_sections) == (0, 0)


def test_sections_that_the_plan_leaves_out_are_not_used(two_sections):
    with opened(two_sections, is_final=(False, True)) as (folder, damaged):
        assert (damaged, folder.num_latents, folder.num_sections) == (None, 1, 1)
    with opened(two_sections) as (folder, _):
        assert folder.num_sections == 2  # nothing was made, nothing is lost
    with opened(two_sections, is_final=(False, True)) as (folder, _):
        add_sections(folder, 2, final=(1,))
    with opened(two_sections, is_final=(False, True)) as (folder, _):
        assert folder.num_sections == 2
    with opened(two_sections) as (folder, _):
        assert folder.num_sections == 1


def test_a_new_section_replaces_all_that_depends_on_the_old_one(two_sections):
    with opened(two_sections) as (folder, _):
        add_sections(folder, 3, final=(2,))
    with opened(two_sections, is_final=(False, True)) as (folder, _):
        folder.add_latents(torch.zeros(1, 16, 5, 2, 3), True, [1])
        left = {path.name for path in two_sections.glob("section_*")}
        assert left == {"section_000.latents", "section_000.frames", "section_001.latents"}


def test_files_of_file_managers_are_ignored(two_sections):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._section_000.frames"):
        (two_sections / name).write_bytes(b"x")
    with opened(two_sections) as (folder, _):
        assert folder.num_sections == 2
        folder.done = True
    assert not two_sections.exists()


def test_the_folder_goes_away_when_it_is_done_or_holds_nothing(two_sections, tmp_path):
    with opened(two_sections) as (folder, _):
        folder.done = True
    assert not two_sections.exists()
    with opened(tmp_path / "c.job") as (folder, _):
        folder._lock.callback((folder.path / "lock").unlink)  # as filelock does on Windows
        folder.write_request({"prompt": "猫"})
        assert "猫" in (folder.path / "request.json").read_text("utf-8")
    assert not folder.path.exists()


def test_two_runs_do_not_share_a_folder(folder):
    with pytest.raises(InputError, match="output_busy"), JobFolder(folder.path, 16, 24, 3):
        pass


def test_partial_files_are_deleted_but_no_foreign_ones(tmp_path):
    path = tmp_path / "b.job"
    path.mkdir()
    for name in ("section_000.frames", "section_000.latents.part", "request.json.part", "closed_000.mp4"):
        (path / name).write_bytes(b"x")
    with opened(path) as (folder, _):
        assert [file.name for file in folder.path.iterdir()] == ["lock"]
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="output_taken"), JobFolder(path, 16, 24, 3):
        pass
    assert (path / "holiday.jpg").exists()

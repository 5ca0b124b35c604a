"""What a job keeps on the disk."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffusers_helper.errors import InputError
from diffusers_helper.job_folder import JobFolder


@pytest.fixture
def folder(tmp_path):
    with JobFolder(tmp_path / "a.job", height=16, width=24, overlap=3) as folder:
        yield folder


def plain(count, value):
    return torch.full((count, 16, 24, 3), float(value))


def values(folder, *span):
    return [int(frame[0, 0, 0]) for frame in folder.frames(*span)]


def test_a_new_section_stands_in_front_and_fades_into_the_old_one(folder):
    folder.add_frames(plain(4, 100))
    folder.add_frames(plain(5, 200))
    assert folder.num_frames == 6
    assert values(folder) == [200, 200, 200, 150, 100, 100]


def test_only_the_newest_seam_changes_when_more_is_added(folder):
    for value in (10, 50, 90):
        folder.add_frames(plain(8, value))
    assert values(folder) == [90] * 6 + [70] + [50] * 4 + [30] + [10] * 6
    assert folder.num_frames == len(values(folder)) == 18


def test_any_span_of_frames_can_be_read(folder):
    for value in (10, 50, 90):
        folder.add_frames(torch.arange(8)[:, None, None, None] + plain(8, value))
    everything = values(folder)
    for start in range(18):
        for stop in range(start, 19):
            assert values(folder, start, stop) == everything[start:stop]


def test_pixels_are_rounded_not_cut(folder):
    folder.add_frames(plain(3, 99.6))
    assert values(folder) == [100, 100, 100]


def test_latents_are_saved_in_the_order_of_the_video(folder, tmp_path):
    first, second = torch.randn(1, 16, 5, 2, 3), torch.randn(1, 16, 6, 2, 3)
    folder.add_latents(first)
    folder.add_latents(second)
    folder.save_latents(tmp_path / "a.safetensors", 16, {"seed": "1"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("latents"), torch.cat([second, first], dim=2))
        assert file.metadata() == {"seed": "1"}


def test_frames_of_one_section_are_read_one_at_a_time(folder):
    folder.add_frames(plain(8, 1))
    frames = folder.frames()
    assert isinstance(next(frames), np.ndarray)


def test_the_folder_goes_away_unless_it_is_kept(tmp_path):
    with JobFolder(tmp_path / "b.job", 16, 24, 3) as folder:
        folder.add_frames(plain(3, 1))
    assert not folder.path.exists()
    with JobFolder(tmp_path / "b.job", 16, 24, 3) as folder:
        folder.keep = True
    assert folder.path.exists()


def test_two_runs_do_not_share_a_folder(tmp_path):
    with JobFolder(tmp_path / "b.job", 16, 24, 3) as first:
        first.add_frames(plain(3, 1))
        with pytest.raises(InputError) as caught, JobFolder(tmp_path / "b.job", 16, 24, 3):
            pass
        assert caught.value.code == "output_busy"
        assert values(first) == [1, 1, 1]
    with JobFolder(tmp_path / "b.job", 16, 24, 3):
        pass


def test_what_a_killed_run_left_is_cleared_but_nothing_else(tmp_path):
    path = tmp_path / "b.job"
    path.mkdir()
    (path / "section_000.frames").write_bytes(b"x")
    with JobFolder(path, 16, 24, 3) as folder:
        assert list(folder.path.iterdir()) == []
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError) as caught, JobFolder(path, 16, 24, 3):
        pass
    assert caught.value.code == "output_taken"
    assert (path / "holiday.jpg").exists()


def test_a_kept_folder_moves_out_of_the_next_runs_way(tmp_path):
    for name in ("b_unfinished", "b_unfinished2"):
        with JobFolder(tmp_path / "b.job", 16, 24, 3) as folder:
            folder.add_frames(plain(3, 1))
            folder.keep_as(tmp_path / "b_unfinished")
        assert (tmp_path / name / "section_000.frames").exists()
    assert not (tmp_path / "b.job").exists()

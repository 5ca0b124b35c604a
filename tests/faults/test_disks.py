"""Disks that are full or cannot be written, in each phase of a video: nothing that was finished is lost."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from diffusers_helper import machine_errors
from tests.support.small_disks import small_disk

REQUEST = {"crf": 1, "seconds": 1, "save_section_stills": True}
"""Two sections of 17 and 24 frames of 64x64."""
FILES = (
    *("video.mp4", "video.png", "video.safetensors"),
    *("video_section_001.png", "video_section_002.png"),
)
PLENTY = "size=20000k"


def slow(*cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture
def blind(monkeypatch):
    """Hide beforehand how little room there is."""
    plenty = SimpleNamespace(total=2**40, used=0, free=2**40)
    monkeypatch.setattr(machine_errors.shutil, "disk_usage", lambda _: plenty)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made():
    """The files of the video where there is room, as soon as a test has made it."""
    return {}


@pytest.fixture
def whole(command, made):
    if not made:
        output = command.folder / "whole"
        assert command(REQUEST, "--save-latents", output=output).status == 0
        made |= contents(output)
    return made


def test_disk_too_small_for_sections_is_refused_early(command):
    with small_disk(command.home, 200):
        sentence = command.refuse({}, status=1)
        assert " of free space, but has only " in sentence
        assert str(command.home) in sentence
        assert not list((command.home / "temp" / "headless").iterdir())


def test_disk_too_small_for_the_video_is_refused_early(command):
    with small_disk(command.folder / "disk", 16) as disk:
        sentence = command.refuse({}, output=disk.folder, status=1)
        assert " of free space, but has only " in sentence
        assert list(disk.folder.iterdir()) == []


@pytest.mark.parametrize(("kilobytes", "done"), [(200, 0), (260, 1), *slow((4, 0), (40, 0), (340, 1))])
@pytest.mark.usefixtures("blind")
def test_full_disk_keeps_finished_sections(command, whole, kilobytes, done):
    with small_disk(command.home, kilobytes) as disk:
        answer = command(REQUEST, "--save-latents")
        assert answer.status == 1
        assert answer.lines[-1].startswith(f"Error: The disk is full ({disk.folder}")
        assert not any(name.endswith(".part") for name in answer.files)
        assert "video.mp4" not in answer.files
        assert any(line.startswith(f"{done} of 2 sections are kept") for line in answer.lines) is bool(done)
        disk.change(PLENTY)
        again = command(REQUEST, "--save-latents")
        assert again.status == 0
        assert (f"Continuing: {done} of 2 sections are already done." in again.lines) is bool(done)
        assert contents(command.output) == whole


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("kilobytes", [4, 60, *slow((20,), (40,), (100,))])
def test_full_disk_leaves_no_half_of_a_video(command, whole, kilobytes):
    with small_disk(command.folder / "disk", kilobytes) as disk:
        answer = command(REQUEST, "--save-latents", output=disk.folder)
        assert answer.status == 1
        assert answer.lines[-1].startswith(f"Error: The disk is full ({disk.folder}")
        found = contents(disk.folder)
        assert "video.mp4" not in found
        assert {name: content for name, content in whole.items() if name in found} == {
            name: content for name, content in found.items() if name != "video_unfinished.mp4"
        }
        disk.change(PLENTY)
        again = command(REQUEST, "--save-latents", output=disk.folder)
        assert again.status == 0
        assert contents(disk.folder) == whole


def test_video_is_finished_after_a_read_only_disk(command, whole, monkeypatch):
    with small_disk(command.folder / "disk", 20000) as disk:
        original = machine_errors.machine_errors

        def read_only_while_saving(folder):
            if folder == disk.folder and list(
                (command.home / "temp" / "headless").glob("*/section_001.frames")
            ):
                disk.change("ro")
            return original(folder)

        with monkeypatch.context() as patch:
            patch.setattr("diffusers_helper.pipeline.machine_errors", read_only_while_saving)
            answer = command(REQUEST, "--save-latents", output=disk.folder)
        assert answer.status == 1
        assert "is read-only. Remove the write protection" in answer.lines[-1]
        assert answer.lines[-2].startswith("2 of 2 sections are kept.")
        refused = command(REQUEST, "--save-latents", output=disk.folder)
        assert refused.status == 1
        assert "is read-only. Remove the write protection" in refused.lines[-1]
        disk.change("rw")
        assert command(REQUEST, "--save-latents", output=disk.folder).status == 0
        assert contents(disk.folder) == whole


def test_video_is_finished_after_a_player_held_it(command, whole, monkeypatch):
    replace = Path.replace

    def held(self, target):
        if Path(target).name == "video.mp4":  # what Windows answers while somebody watches the old one
            raise PermissionError(13, "The process cannot access the file", str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        answer = command(REQUEST, "--save-latents")
    assert answer.status == 1
    assert "video.mp4 cannot be read or written (The process cannot access the file)" in answer.lines[-1]
    again = command(REQUEST, "--save-latents")
    assert "Continuing: 2 of 2 sections are already done." in again.lines
    assert contents(command.output) == whole

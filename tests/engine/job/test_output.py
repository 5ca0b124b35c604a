"""The names of a job's files, and modules that import no torch."""

import errno
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.errors import InputError
from diffusers_helper.job.output import Target

ROOT = Path(__file__).parents[3]
WITHOUT_TORCH = (
    "buckets", "errors", "events", "files.checksummed", "files.exclusive_lock", "job.output",
    "media.embedded_request", "media.images", "media.loop", "media.video", "plan",
    "request", "sections", "weights.model_files",
)  # fmt: skip


def test_companions_stand_beside_the_video(tmp_path):
    target = Target(tmp_path, "v1.2")
    assert target.file(".mp4") == tmp_path / "v1.2.mp4"
    assert target.file("_section_001.png") == tmp_path / "v1.2_section_001.png"


def test_pictures_files_plans_and_the_builder_of_random_models_import_no_torch():
    program = ["import sys"]
    for name in (*(f"diffusers_helper.{name}" for name in WITHOUT_TORCH), "demo_models.random_models"):
        program += [f"import {name}", f"if 'torch' in sys.modules: sys.exit('{name}')"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_takes_no_video_is_named(tmp_path, monkeypatch):
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(InputError, match="output_taken"):
        Target(tmp_path, "taken").check()
    for number, expected in ((errno.EACCES, InputError), (errno.ENOSPC, OSError)):
        refuse = Mock(side_effect=OSError(number, "refused"))
        monkeypatch.setattr("diffusers_helper.job.output.tempfile.TemporaryFile", refuse)
        with pytest.raises(expected, match=r"output_not_writable|refused"):
            Target(tmp_path, "free").check()

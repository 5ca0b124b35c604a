"""The names of a job's files, and modules that import no torch."""

import subprocess
import sys
from pathlib import Path

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

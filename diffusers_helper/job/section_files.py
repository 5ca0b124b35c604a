"""The names of the files in a job's working folder. Imports no torch, unlike `folder`, which writes them."""

import re
from pathlib import Path
from typing import Literal

Kind = Literal["latents", "frames"]
SECTION = re.compile(r"section_(\d+)\.(?:latents|frames)")
PARTIAL_PREFIX = "so_far_"
"""The beginning of the names of partial videos (see `partial_video`)."""


def section_file(folder: Path, number: int, kind: Kind) -> Path:
    """The file of a section; numbers count from 0, the end of the video."""
    return folder / f"section_{number:03d}.{kind}"


def holds_sections(folder: Path) -> bool:
    """Return whether a job's folder holds anything to resume from: sampled sections, even if not decoded."""
    return folder.is_dir() and any(SECTION.fullmatch(path.name) for path in folder.iterdir())


def count_stored_sections(folder: Path, kind: Kind = "frames") -> int:
    """Count the finished sections in a job's folder, or the sampled ones, by the files' names.

    They may be damaged.
    """
    count = 0
    while section_file(folder, count, kind).is_file():
        count += 1
    return count


def list_partial_videos(folder: Path) -> list[Path]:
    """The partial videos in a job's folder, the newest last."""
    return sorted(folder.glob(f"{PARTIAL_PREFIX}*.mp4"))

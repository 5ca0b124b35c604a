"""The names of the engine's rooms that an app may use besides the engine: files, media, model folders.

Importing it imports no torch.
"""

# ruff: noqa: F401  (everything here is imported for others)

from .files.atomic import atomic_write, delete_file, replace_file
from .files.disk_errors import DISK_CODES, disk_errors
from .files.exclusive_lock import exclusive_lock
from .job.section_files import count_stored_sections, list_partial_videos
from .media.embedded_request import load_request
from .media.images import open_data_uri, read_image, read_size
from .media.video import count_frames, read_last_frame
from .weights.checkpoint import SINGLE_FILES
from .weights.model_files import (
    PARTS,
    ModelFiles,
    ModelPart,
    PartSpec,
    check_fit,
    find_models,
    find_part,
    repository_folders,
)

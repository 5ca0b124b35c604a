"""The names of the engine's rooms that an app may use besides the engine: files, media, model folders.

Importing it imports no torch.
"""

# ruff: noqa: F401  (everything here is imported for others)

from .eight_bit.folder import OutdatedWeights, delete_outdated, find_outdated, room_for_eight_bit
from .encoding.prompt_limit import find_unread
from .files.atomic import atomic_write, delete_file, new_file, read_small, replace_file
from .files.compiler_failure import installed_versions, read_failure
from .files.disk_errors import disk_error, disk_errors, is_limit
from .files.exclusive_lock import exclusive_lock
from .job.output import JOINED
from .job.section_files import count_stored_sections, holds_sections, list_partial_videos
from .media.embedded_request import load_request, read_packed
from .media.images import read_image, read_size
from .media.joining import continue_video
from .media.picture_file import MAX_MISSING, open_data_uri
from .media.video import count_frames, read_first_frame, read_last_frame, read_size_and_length
from .weights.checkpoint import SINGLE_FILES
from .weights.contents import check_contents, record_in
from .weights.model_files import (
    PARTS,
    ModelFiles,
    ModelPart,
    PartSpec,
    check_fit,
    find_models,
    find_part,
    find_single_file,
    repository_folders,
)

"""The fingerprint of a job: one digest of the request and its pictures, one of the models, and the seed.

A run resumes the sections of an earlier one only where all are equal.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..request import REQUEST_FIELDS, GenerationRequest
from ..weights.model_files import ModelFiles, content_fingerprint


@dataclass(frozen=True)
class JobFingerprint:
    """The digests of `request_identity` and `models_identity`, and the seed: every file of a job has them."""

    identity: str
    models: str
    seed: int


def request_identity(request: GenerationRequest, pictures: Mapping[str, np.ndarray]) -> str:
    """Digest all that decides a section's numbers, but for the seed and the models.

    `pictures` are cropped, `(height, width, 3)` uint8 by their names in the request.
    """
    digests = {
        name: hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()
        for name, picture in pictures.items()
    }
    values = request.map_images(digests.__getitem__).to_dict()
    defaults = GenerationRequest().to_dict()  # left out: a later version may know more keys
    decisive = {
        key: value
        for key, value in values.items()
        if value != defaults[key] and REQUEST_FIELDS[key].metadata["decides"]
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def models_identity(files: ModelFiles) -> str:
    """Digest the models' names, sizes and samples of their content: a copy elsewhere has the same."""
    pieces = itertools.chain.from_iterable(map(content_fingerprint, vars(files).values()))
    return hashlib.sha256(b"".join(pieces)).hexdigest()

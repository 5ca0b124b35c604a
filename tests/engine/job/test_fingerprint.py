"""The fingerprint by which two runs are the same job."""

import dataclasses
import shutil

import numpy as np
import pytest

from diffusers_helper.job.fingerprint import models_identity, request_identity
from diffusers_helper.request import GenerationRequest
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS, VAE_FILE, copy_models

REQUEST = GenerationRequest(start_image="a.png", prompt="A cat.", seed=7)
PICTURES = {"a.png": np.zeros((16, 16, 3), np.uint8)}


@pytest.mark.parametrize(
    ("change", "is_same"),
    [({"prompt": "A dog."}, False), ({"seconds": 3}, False), ({"loop": True}, False), ({"crf": 30}, True)],
)
def test_what_decides_the_sections_decides_the_job(change, is_same):
    changed = dataclasses.replace(REQUEST, **change)
    assert (request_identity(changed, PICTURES) == request_identity(REQUEST, PICTURES)) is is_same


def test_the_pictures_decide_and_their_names_do_not():
    other = {"b.png": PICTURES["a.png"]}
    renamed = dataclasses.replace(REQUEST, start_image="b.png")
    assert request_identity(renamed, other) == request_identity(REQUEST, PICTURES)
    assert request_identity(REQUEST, {"a.png": PICTURES["a.png"] + 1}) != request_identity(REQUEST, PICTURES)


def test_copied_models_are_the_same_and_changed_ones_are_not(tmp_path):
    shutil.copytree(MODELS, tmp_path / "copy", copy_function=shutil.copyfile)
    changed = copy_models(tmp_path / "changed", VAE_FILE, decoder__conv_out__conv__bias=0.5)
    here, copy, other = (models_identity(find_models(path)) for path in (MODELS, tmp_path / "copy", changed))
    assert here == copy != other


def test_a_new_key_with_its_default_does_not_change_the_fingerprint(monkeypatch):
    before, known = request_identity(REQUEST, PICTURES), GenerationRequest.to_dict
    monkeypatch.setattr(GenerationRequest, "to_dict", lambda self: known(self) | {"new_key": False})
    assert request_identity(REQUEST, PICTURES) == before

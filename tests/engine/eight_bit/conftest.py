"""Folders of 8-bit weights that are made of the tiny models."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from diffusers_helper.eight_bit import shard_plan
from diffusers_helper.eight_bit.conversion import convert
from diffusers_helper.eight_bit.folder import eight_bit_folder
from diffusers_helper.weights.model_files import ModelPart, find_models
from tests.support.tiny import MODELS

SHARD_BYTES = 300_000


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make several files, as the real weights do."""
    monkeypatch.setattr(shard_plan, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of 8-bit weights; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished") / "8bit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_plan, "SHARD_BYTES", SHARD_BYTES)
        for _progress in convert(find_models(MODELS).transformer, folder):
            pass
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The tiny models where files may be written."""
    return Path(shutil.copytree(MODELS, tmp_path / "models"))


@pytest.fixture
def source(models: Path) -> ModelPart:
    return find_models(models).transformer


@pytest.fixture
def converted(models: Path, finished: Path) -> Path:
    """The folder of 8-bit weights beside these models, whose times a copy keeps."""
    return Path(shutil.copytree(finished, eight_bit_folder(models)))


@pytest.fixture
def graphs() -> Iterator[CompileCounter]:
    """A backend for `torch.compile` that counts the graphs and runs them as they are."""
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()

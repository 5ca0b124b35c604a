"""A hub on this computer, and empty folders to download to."""

from collections.abc import Iterator

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.support.fake_hub import FakeHub
from tests.support.tiny import MODELS
from webui.eichi_utils.download.model_folders import ModelFolders

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def online(monkeypatch) -> Iterator[None]:
    """This process as the download's own: it may talk to the network, and knows no proxy and no token."""
    for name in (*PROXIES, "HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/")  # a folder, which cannot be read
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch) -> Iterator[FakeHub]:
    with FakeHub(MODELS) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake


@pytest.fixture
def folders(tmp_path) -> ModelFolders:
    return ModelFolders(None, tmp_path / "own", (tmp_path / "cache",))

"""The preflight checks at the start and after each download, and its view changes with both."""

import sys
from types import SimpleNamespace

import pytest

from tests.support.app import wait_until
from webui.eichi_utils import preflight as preflight_module
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.machine.rules import CheckLine
from webui.eichi_utils.preflight import Preflight

LINE = CheckLine("python", "good", {})


@pytest.fixture
def preflight(tmp_path, monkeypatch) -> Preflight:
    monkeypatch.setattr(preflight_module, "check_lines", lambda *_: [LINE])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))  # so that a download fails at once
    return Preflight(lambda: SimpleNamespace(folders=ModelFolders(None, tmp_path)), lambda: tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(("state", "code"), [("idle", None), ("failed", "unexpected")])
def test_everything_is_checked_at_the_start_and_after_a_download(preflight, state, code):
    view = preflight.view()
    assert (view.lines, view.models, view.download.state) == (None, None, "idle")
    if state == "idle":
        preflight.check_again()
    else:
        assert preflight.download.start()
    wait_until(lambda: preflight.view().lines, "it is checked")
    view = preflight.view()
    assert (view.lines, view.models.state, view.download.state) == ((LINE,), "missing", state)
    assert (view.download.failure and view.download.failure.code) == code

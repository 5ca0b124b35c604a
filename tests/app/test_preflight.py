"""The preflight checks at the start and after each download, and its view changes with both."""

import sys
import time

import pytest

from tests.support.queue import SOON
from webui.eichi_utils import preflight as preflight_module
from webui.eichi_utils.download.model_folders import ModelFolders
from webui.eichi_utils.machine.rules import CheckLine
from webui.eichi_utils.preflight import Preflight, PreflightView

LINE = CheckLine("python", "good", {})


@pytest.fixture
def preflight(tmp_path, monkeypatch) -> Preflight:
    monkeypatch.setattr(preflight_module, "check_lines", lambda options: [LINE, options])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))  # so that a download fails at once
    return Preflight("options", ModelFolders(None, tmp_path))  # type: ignore[arg-type]


def view_when_checked(preflight: Preflight) -> PreflightView:
    end = time.monotonic() + SOON
    while not (view := preflight.view()).lines:
        assert time.monotonic() < end, view
        time.sleep(0.01)
    return view


def test_nothing_is_known_before_the_first_check(preflight):
    view = preflight.view()
    assert (view.lines, view.models, view.download.state) == (None, None, "idle")
    preflight.check_again()
    view = view_when_checked(preflight)
    assert view.lines == (LINE, "options")
    assert view.models.state == "missing"


def test_everything_is_checked_again_after_a_download(preflight):
    assert preflight.download.start()
    assert view_when_checked(preflight).download.state == "failed"

"""Settings and presets as the version before the rooms wrote them are read, and nothing in them is lost."""

import json
import shutil
from pathlib import Path

import pytest

from webui.eichi_utils.app import SETTINGS_FIELDS
from webui.eichi_utils.output import resolve_output
from webui.eichi_utils.settings.presets import PresetStore
from webui.eichi_utils.settings.settings import SettingsStore

OLD = Path(__file__).parent / "webui"
"""The app's folder, filled by that version with a value of each kind that is no default."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "webui"))


def test_old_settings_are_read_and_stay(home):
    path = home / "settings" / "app_settings.json"
    old = json.loads(path.read_text("utf-8"))
    assert set(old) == set(SETTINGS_FIELDS), "each of them is tried"
    assert all(old[key] != field.default for key, field in SETTINGS_FIELDS.items())
    store = SettingsStore(path, SETTINGS_FIELDS)
    assert (store.load(), store.notices) == (old, [])
    store.update(steps=30)
    assert json.loads(path.read_text("utf-8")) == old | {"steps": 30}
    assert resolve_output(old["output_folder"], home) == home / "outputs" / "猫"


def test_old_presets_are_read_and_stay(home):
    path = home / "presets" / "prompt_presets.json"
    old = json.loads(path.read_text("utf-8"))
    store = PresetStore(path, [("starter", "x")])
    assert store.notices == []
    assert {name: store.prompt_of(name) for name in store.names()} == {
        "踊る": "The girl dances.",
        "猫 👨‍👩‍👧": "A cat yawns.\nIt sleeps.  ",
        "half \\": "\ud800 of a character",
    }
    assert store.startup_name() == "猫 👨‍👩‍👧"
    store.save("new", "x")
    new = json.loads(path.read_text("utf-8"))
    assert new | {"presets": new["presets"][:3]} == old

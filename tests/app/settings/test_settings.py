"""Settings: one at a time they may be unusable, together they are never lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Notice
from webui.eichi_utils.settings.settings import Field, SettingsStore

FIELDS = {
    "language": Field(None, lambda value: value in {None: 0, "en": 1, "ja": 2}),
    "sound": Field(False, lambda value: isinstance(value, bool)),
    "steps": Field(16, lambda value: 1 <= value <= 100),
}
DEFAULTS = {"language": None, "sound": False, "steps": 16}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "app_settings.json"


def opened(path: Path, values: object = None) -> SettingsStore:
    """The store after these values were written, if any."""
    if values is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values), "utf-8")
    return SettingsStore(path, FIELDS)


def kept(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_settings_have_defaults_and_come_back_at_the_next_start(path):
    store = opened(path)
    assert (store.load(), store.notices) == (DEFAULTS, [])
    assert not path.parent.exists(), "nothing is written"
    store.update(language="ja", steps=20)
    assert store.load() == opened(path).load() == DEFAULTS | {"language": "ja", "steps": 20}


@pytest.mark.parametrize(
    ("key", "value"),
    [("sound", value) for value in ("loud", 1, None, [], {})] + [("language", ["ja"]), ("steps", "many")],
)
def test_unusable_setting_alone_falls_back_with_a_notice(path, key, value):
    other = {"language": "ja"} if key != "language" else {"steps": 20}
    store = opened(path, {key: value} | other)
    assert store.load() == DEFAULTS | other
    assert store.notices == [Notice("setting_unusable", {"setting": key, "value": str(value)})]


def test_unusable_and_unknown_settings_stay_until_changed(path):
    newer = {"language": "fr", "sound": 1, "volume": {"left": 0.5}}
    store = opened(path, newer)
    store.update(steps=20)
    assert kept(path) == newer | {"steps": 20}
    store.update(language=None, sound=True)
    assert kept(path) == newer | {"steps": 20, "language": None, "sound": True}
    assert store.load() == DEFAULTS | {"steps": 20, "sound": True}


def test_nothing_is_written_where_nothing_is_new(path):
    store = opened(path)
    store.update(steps=16, sound=False)
    assert not path.exists()
    store.update(steps=20)
    before = path.stat()
    store.update(steps=20, sound=False)
    assert path.stat() == before


def test_invalid_changes_are_ignored(path):
    store = opened(path)
    for changes in ({"steps": 0}, {"sound": "yes"}, {"language": "fr"}, {"steps": float("nan")}):
        store.update(**changes)
    assert not path.exists()
    with pytest.raises(KeyError):
        store.update(stepz=1)


def test_unwritable_change_holds_and_is_written_with_the_next(path):
    store = opened(path)
    part = path.with_name("app_settings.json.part")
    part.mkdir(parents=True)  # in the way of the new file
    with pytest.raises(MachineError, match="cannot_write"):
        store.update(steps=20)
    assert store.load()["steps"] == 20
    part.rmdir()
    store.update(steps=20)
    assert kept(path) == {"steps": 20}


def test_many_threads_lose_nothing(path):
    fields = {f"key{number}": Field(0, lambda value: isinstance(value, int)) for number in range(8)}
    store = SettingsStore(path, fields)

    def count(key: str) -> None:
        for value in range(1, 11):
            store.update(**{key: value})

    with ThreadPoolExecutor(len(fields)) as pool:
        assert [*pool.map(count, fields)] == [None] * len(fields)
    assert kept(path) == dict.fromkeys(fields, 10)

"""Settings: one at a time they may be unusable, together they are never lost."""

import json
import threading
from pathlib import Path

import pytest

from diffusers_helper.errors import MachineError
from webui.eichi_utils.settings.settings import Field, SettingsStore

LANGUAGES = {"en": 1, "ja": 2}
FIELDS = {
    "language": Field(None, lambda value: value is None or value in LANGUAGES),
    "sound": Field(True, lambda value: isinstance(value, bool)),
    "output_folder": Field("outputs", lambda value: isinstance(value, str)),
    "steps": Field(16, lambda value: 1 <= value <= 100),
    "rows": Field([], lambda value: isinstance(value, list)),
}
DEFAULTS = {"language": None, "sound": True, "output_folder": "outputs", "steps": 16, "rows": []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "app_settings.json"


def put(path: Path, values: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values), "utf-8")


def kept(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_without_a_file_everything_has_its_default_and_nothing_is_written(path):
    store = SettingsStore(path, FIELDS)
    assert store.load() == DEFAULTS
    assert store.notices == []
    assert not path.parent.exists()


def test_settings_come_back_at_the_next_start(path):
    SettingsStore(path, FIELDS).update(language="ja", steps=20)
    assert SettingsStore(path, FIELDS).load() == DEFAULTS | {"language": "ja", "steps": 20}


def test_the_forerunners_file_is_read(path):
    put(path, {"output_folder": "my videos"})
    assert SettingsStore(path, FIELDS).load() == DEFAULTS | {"output_folder": "my videos"}


@pytest.mark.parametrize("broken", ["loud", 1, None, [], {}])
def test_one_unusable_setting_falls_back_alone_and_is_told(path, broken):
    put(path, {"sound": broken, "steps": 20})
    store = SettingsStore(path, FIELDS)
    assert store.load() == DEFAULTS | {"steps": 20}
    assert [(n.code, n.values) for n in store.notices] == [
        ("setting_unusable", {"setting": "sound", "value": str(broken)})
    ]


@pytest.mark.parametrize(("key", "value"), [("language", ["ja"]), ("steps", "many")])
def test_a_value_that_a_check_cannot_even_look_at_falls_back(path, key, value):
    put(path, {key: value})
    assert SettingsStore(path, FIELDS).load() == DEFAULTS


def test_an_unusable_setting_is_told_once(path):
    put(path, {"sound": "loud"})
    store = SettingsStore(path, FIELDS)
    store.load()
    store.update(steps=20)
    put(path, {"sound": "loud", "steps": 3})
    store.load()
    assert len(store.notices) == 1


def test_an_unusable_setting_stays_in_the_file_until_it_is_changed(path):
    put(path, {"language": "fr"})
    store = SettingsStore(path, FIELDS)
    store.update(steps=20)
    assert kept(path) == {"language": "fr", "steps": 20}
    store.update(language=None)
    assert kept(path) == {"language": None, "steps": 20}


def test_what_a_newer_version_keeps_there_survives(path):
    put(path, {"volume": {"left": 0.5}, "steps": 20})
    SettingsStore(path, FIELDS).update(steps=30)
    assert kept(path) == {"volume": {"left": 0.5}, "steps": 30}


def test_nothing_is_written_where_nothing_is_new(path):
    store = SettingsStore(path, FIELDS)
    store.update(steps=16, sound=True)
    assert not path.exists()
    store.update(steps=20)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    store.update(steps=20, sound=True)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_a_broken_file_is_set_aside_and_told(path):
    path.parent.mkdir()
    path.write_text("{broken")
    store = SettingsStore(path, FIELDS)
    assert store.load() == DEFAULTS
    assert [notice.code for notice in store.notices] == ["file_set_aside"]
    store.update(steps=20)
    assert kept(path) == {"steps": 20}
    assert (path.parent / "app_settings.broken-1.json").read_text() == "{broken"


@pytest.mark.parametrize(
    "changes", [{"stepz": 1}, {"steps": 0}, {"sound": "yes"}, {"language": "fr"}, {"rows": [float("nan")]}]
)
def test_what_cannot_be_a_setting_is_refused(path, changes):
    with pytest.raises(ValueError, match="="):
        SettingsStore(path, FIELDS).update(**changes)
    assert not path.exists()


def test_a_change_that_cannot_be_written_holds_and_is_written_later(path):
    path.parent.mkdir()
    (path.parent / "app_settings.json.part").mkdir()  # in the way of the new file
    store = SettingsStore(path, FIELDS)
    with pytest.raises(MachineError, match="cannot_write"):
        store.update(steps=20)
    assert store.load()["steps"] == 20
    (path.parent / "app_settings.json.part").rmdir()
    store.update(steps=20)
    assert kept(path) == {"steps": 20}


def test_two_processes_do_not_undo_each_others_changes(path):
    one, other = SettingsStore(path, FIELDS), SettingsStore(path, FIELDS)
    assert one.load() == other.load()
    one.update(steps=20)
    other.update(sound=False)
    assert one.load() == other.load() == DEFAULTS | {"steps": 20, "sound": False}


def test_what_is_given_out_is_a_copy(path):
    store = SettingsStore(path, FIELDS)
    rows = ["a"]
    store.update(rows=rows)
    rows.append("b")
    store.load()["rows"].append("c")
    assert store.load()["rows"] == ["a"]
    SettingsStore(path, {"rows": FIELDS["rows"]}).load()["rows"].append("d")
    assert FIELDS["rows"].default == []


def test_many_threads_lose_nothing(path):
    fields = {f"key{number}": Field(0, lambda value: isinstance(value, int)) for number in range(8)}
    store = SettingsStore(path, fields)

    def count(key: str) -> None:
        for value in range(1, 11):
            store.update(**{key: value})

    threads = [threading.Thread(target=count, args=[key]) for key in fields]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(path) == dict.fromkeys(fields, 10)
    assert store.notices == []

"""Prompt presets: the forerunner's file, read and kept as its users left it."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils.settings.presets import FORERUNNER_STARTUP, PresetStore

TWICE = "A character turns.\nA character smiles.  "
"""The forerunner cut such a prompt at its second sentence."""
FORERUNNER = {
    "presets": [
        {
            "name": "デフォルト 1: A character doing so...",
            "prompt": "A character doing some simple body movements.",
            "timestamp": "2025-04-25T12:00:00",
            "is_default": True,
        },
        {
            "name": "cat",
            "prompt": TWICE,
            "timestamp": "2025-04-26T12:00:00",
            "is_default": False,
            "mine": [1],
        },
        {
            "name": FORERUNNER_STARTUP,
            "prompt": "The girl dances.",
            "timestamp": "2025-04-25T12:00:00",
            "is_default": True,
            "is_startup_default": True,
        },
    ],
    "default_startup_prompt": "The girl dances.",
    "version": 7,
}
STARTERS = [("dance", "The girl dances."), ("yawn", "The cat yawns.")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "presets" / "prompt_presets.json"


def put(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def kept(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture
def theirs(path: Path) -> PresetStore:
    """A store on a file that the forerunner wrote."""
    put(path, FORERUNNER)
    return PresetStore(path, STARTERS)


def test_the_forerunners_presets_are_there_in_their_order(theirs):
    assert theirs.names() == [entry["name"] for entry in FORERUNNER["presets"]]
    assert theirs.startup_name() == FORERUNNER_STARTUP
    assert theirs.startup_prompt() == "The girl dances."


def test_a_prompt_is_kept_exactly_as_it_is(theirs, path):
    assert theirs.prompt_of("cat") == TWICE
    theirs.save("new", TWICE)
    assert PresetStore(path).prompt_of("new") == TWICE
    theirs.save("new", f" {TWICE}\n")
    assert PresetStore(path).prompt_of("new") == f" {TWICE}\n"


def test_reading_changes_nothing_in_the_file(theirs, path):
    before = path.read_bytes()
    theirs.names(), theirs.startup_prompt(), theirs.prompt_of("cat")
    assert path.read_bytes() == before


def test_what_is_not_known_here_stays_in_the_file(theirs, path):
    theirs.save("cat", "The cat yawns.")
    assert kept(path)["version"] == 7
    assert kept(path)["presets"][1]["mine"] == [1]


def test_an_entry_that_is_no_preset_is_left_alone(path):
    put(path, {"presets": [1, {"name": "a"}, {"name": 1, "prompt": "b"}, {"name": "c", "prompt": "d"}]})
    store = PresetStore(path)
    assert store.names() == ["c"]
    store.delete("c")
    assert kept(path)["presets"] == [1, {"name": "a"}, {"name": 1, "prompt": "b"}]


def test_without_a_file_there_are_starters_and_nothing_is_written(path):
    store = PresetStore(path, STARTERS)
    assert store.names() == ["dance", "yawn"]
    assert store.prompt_of("yawn") == "The cat yawns."
    assert store.startup_prompt() is None
    assert not path.parent.exists()


def test_the_first_change_writes_the_starters_too(path):
    PresetStore(path, STARTERS).save("new", "A dog.")
    assert PresetStore(path, [("other", "x")]).names() == ["dance", "yawn", "new"]


def test_starters_and_the_forerunners_own_can_be_deleted(theirs, path):
    for name in theirs.names():
        theirs.delete(name)
    assert theirs.names() == []
    assert PresetStore(path, STARTERS).names() == []


def test_saving_tells_whether_it_replaced_one(path):
    store = PresetStore(path)
    assert store.save("a", "one") is False
    assert store.save(" a ", "two") is True
    assert store.names() == ["a"]
    assert store.prompt_of("a") == "two"


def test_a_saved_preset_has_everything_that_the_forerunner_reads(path):
    PresetStore(path).save("a", "one")
    [entry] = kept(path)["presets"]
    assert entry.keys() == {"name", "prompt", "timestamp", "is_default"}
    assert datetime.fromisoformat(entry["timestamp"]) <= datetime.now()


@pytest.mark.parametrize("name", ["猫", "a" * 100, "a/b: c?", "👨‍👩‍👧"])
def test_a_name_may_be_any_line_of_text(path, name):
    PresetStore(path).save(name, "x")
    assert PresetStore(path).names() == [name]


@pytest.mark.parametrize("name", ["", "  ", "　", "a" * 101, "a\nb", "a\x00", "\u200b", "\ud800", "a\u2028b"])
def test_a_name_that_cannot_be_shown_is_refused(path, name):
    with pytest.raises(InputError, match="bad_preset_name"):
        PresetStore(path).save(name, "x")
    assert not path.exists()


@pytest.mark.parametrize("prompt", ["", " \n", "　"])
def test_a_blank_prompt_is_refused_and_the_old_one_stays(theirs, prompt):
    with pytest.raises(InputError, match="preset_without_prompt"):
        theirs.save("cat", prompt)
    assert theirs.prompt_of("cat") == TWICE


def test_an_old_name_that_would_be_refused_today_can_be_changed_and_deleted(path):
    put(path, {"presets": [{"name": "a\n", "prompt": "x"}]})
    store = PresetStore(path)
    assert store.save("a\n", "y") is True
    assert store.prompt_of("a\n") == "y"
    store.delete("a\n")
    assert store.names() == []


@pytest.mark.parametrize("use", [PresetStore.prompt_of, PresetStore.delete, PresetStore.mark_startup])
def test_a_preset_that_is_not_there_is_an_error_with_its_name(theirs, use):
    with pytest.raises(InputError) as caught:
        use(theirs, "dog")
    assert (caught.value.code, caught.value.values) == ("preset_missing", {"name": "dog"})


def test_one_preset_at_a_time_is_the_startup_prompt(theirs, path):
    theirs.mark_startup("cat")
    again = PresetStore(path)
    assert (again.startup_name(), again.startup_prompt()) == ("cat", TWICE)
    assert kept(path)["default_startup_prompt"] == TWICE
    assert sum(entry.get("is_startup_default", False) for entry in kept(path)["presets"]) == 1


def test_there_need_be_no_startup_prompt(theirs, path):
    theirs.mark_startup(None)
    again = PresetStore(path)
    assert (again.startup_name(), again.startup_prompt()) == (None, None)
    assert again.names() == theirs.names()


def test_after_its_preset_is_deleted_there_is_no_startup_prompt(theirs, path):
    theirs.delete(FORERUNNER_STARTUP)
    assert PresetStore(path).startup_prompt() is None


def test_the_startup_prompt_follows_its_preset(theirs, path):
    theirs.save(FORERUNNER_STARTUP, "The girl sings.")
    assert PresetStore(path).startup_prompt() == "The girl sings."
    assert kept(path)["default_startup_prompt"] == "The girl sings."


def test_a_marked_preset_wins_over_the_prompt_beside_the_presets(path):
    put(path, FORERUNNER | {"default_startup_prompt": "Something else."})
    assert PresetStore(path).startup_prompt() == "The girl dances."


def test_a_startup_prompt_beside_the_presets_becomes_one_of_them(path):
    put(path, {"presets": [], "default_startup_prompt": "The girl dances."})
    store = PresetStore(path)
    assert (store.names(), store.startup_prompt()) == ([FORERUNNER_STARTUP], "The girl dances.")


def test_it_takes_no_name_from_a_preset_with_another_prompt(path):
    presets = [{"name": FORERUNNER_STARTUP, "prompt": "Another."}]
    put(path, {"presets": presets, "default_startup_prompt": "The girl dances."})
    store = PresetStore(path)
    assert store.prompt_of(FORERUNNER_STARTUP) == "Another."
    assert store.startup_name() == f"{FORERUNNER_STARTUP} 2"


@pytest.mark.parametrize("prompt", ["", " ", None, 7])
def test_a_blank_startup_prompt_is_none(path, prompt):
    put(path, {"presets": [], "default_startup_prompt": prompt})
    assert PresetStore(path).startup_prompt() is None


@pytest.mark.parametrize("content", ["[]", '{"presets": {}}', "{", "null"])
def test_a_broken_file_is_set_aside_and_the_starters_are_back(path, content):
    path.parent.mkdir()
    path.write_text(content)
    store = PresetStore(path, STARTERS)
    assert store.names() == ["dance", "yawn"]
    assert [notice.code for notice in store.notices] == ["file_set_aside"]
    store.save("new", "x")
    assert (path.parent / "prompt_presets.broken-1.json").read_text() == content


def test_two_processes_do_not_undo_each_others_changes(path):
    one, other = PresetStore(path), PresetStore(path)
    one.save("a", "x")
    other.save("b", "y")
    one.save("c", "z")
    assert one.names() == other.names() == ["a", "b", "c"]


def test_what_cannot_be_written_has_not_happened(theirs, path):
    (path.parent / "prompt_presets.json.part").mkdir()  # in the way of the new file
    with pytest.raises(MachineError, match="cannot_write"):
        theirs.save("new", "x")
    with pytest.raises(MachineError, match="cannot_write"):
        theirs.delete("cat")
    assert theirs.names() == [entry["name"] for entry in FORERUNNER["presets"]]

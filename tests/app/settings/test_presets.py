"""Prompt presets: the predecessor's file, read and kept as its users left it."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from diffusers_helper.errors import InputError, MachineError
from webui.eichi_utils.settings.presets import PREDECESSOR_STARTUP, PresetStore

TWICE = "A character turns.\nA character smiles.  "
"""A prompt that the predecessor cut at its second sentence."""
DANCES = "The girl dances."
BUILT_IN = {"timestamp": "2025-04-25T12:00:00", "is_default": True}
FORERUNNER = {
    "presets": [
        {"name": "デフォルト 1: A character...", "prompt": "A character moves.", **BUILT_IN},
        {"name": "cat", "prompt": TWICE, **BUILT_IN, "is_default": False, "mine": [1]},
        {"name": PREDECESSOR_STARTUP, "prompt": DANCES, **BUILT_IN, "is_startup_default": True},
    ],
    "default_startup_prompt": DANCES,
    "version": 7,
}
NAMES = [str(entry["name"]) for entry in FORERUNNER["presets"]]
STARTERS = [("dance", DANCES), ("yawn", "The cat yawns.")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "presets" / "prompt_presets.json"


def opened(path: Path, content: object = None) -> PresetStore:
    """The store after this content was written, if any."""
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")
    return PresetStore(path, STARTERS)


def kept(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture
def theirs(path: Path) -> PresetStore:
    """A store on a file that the predecessor wrote."""
    return opened(path, FORERUNNER)


def test_predecessor_presets_are_read_in_order_and_left_alone(theirs, path):
    before = path.read_bytes()
    read = theirs.names(), theirs.startup_name(), theirs.prompt_of("cat")
    assert read == (NAMES, PREDECESSOR_STARTUP, TWICE)
    assert path.read_bytes() == before


def test_unknown_keys_and_entries_stay_in_the_file(path):
    foreign = [1, {"name": "a"}, {"name": 1, "prompt": "b"}]
    store = opened(path, FORERUNNER | {"presets": [*foreign, *FORERUNNER["presets"]]})
    store.save("cat", "The cat yawns.")
    store.delete(PREDECESSOR_STARTUP)
    assert store.names() == NAMES[:2]
    content = kept(path)
    assert (content["version"], content["presets"][:3], content["presets"][4]["mine"]) == (7, foreign, [1])


def test_of_two_presets_with_one_name_the_first_counts(path):
    name = "a\n"  # which the predecessor took
    store = opened(path, {"presets": [{"name": name, "prompt": text} for text in "xy"]})
    assert (store.names(), store.prompt_of(name), store.save(name, "z")) == ([name], "x", True)
    assert store.prompt_of(name) == "z"
    store.delete(name)
    assert kept(path)["presets"] == []


def test_starters_are_written_with_the_first_change(path):
    for content, codes in ((None, []), ({"presets": {}}, ["file_set_aside"])):
        store = opened(path, content)
        assert (store.names(), store.startup_name()) == (["dance", "yawn"], None)
        assert [notice.code for notice in store.notices] == codes
        assert not path.exists(), "nothing is written before"
    store.save("new", "A dog.")
    assert PresetStore(path, [("other", "x")]).names() == ["dance", "yawn", "new"]


def test_saving_returns_whether_it_replaced(path):
    store = PresetStore(path)
    assert [store.save("a", "one"), store.save(" a ", "two")] == [False, True]
    assert (store.names(), store.prompt_of("a")) == (["a"], "two")
    [entry] = kept(path)["presets"]
    assert entry.keys() == {"name", "prompt", "timestamp", "is_default"}, "what the predecessor reads"
    assert datetime.fromisoformat(entry["timestamp"]) <= datetime.now()


def test_name_may_be_any_line_of_text(path):
    names, store = ["猫", "a" * 100, "a/b: c?", "👨‍👩‍👧"], PresetStore(path)
    for name in names:
        store.save(name, f" {TWICE}\n")
    store = PresetStore(path)
    assert store.names() == names
    assert store.prompt_of(names[0]) == f" {TWICE}\n", "a prompt is kept exactly"


BAD_NAMES = ["", "  ", "　", "a" * 101, "a\nb", "a\x00", "\u200b", "\ud800", "a\u2028b"]
REFUSED = [*(("bad_preset_name", name, "x") for name in BAD_NAMES)]
REFUSED += [("preset_without_prompt", "cat", prompt) for prompt in ("", " \n", "　")]


@pytest.mark.parametrize(("code", "name", "prompt"), REFUSED)
def test_name_that_cannot_be_shown_and_blank_prompt_are_refused(theirs, code, name, prompt):
    with pytest.raises(InputError, match=code):
        theirs.save(name, prompt)
    assert (theirs.names(), theirs.prompt_of("cat")) == (NAMES, TWICE)


@pytest.mark.parametrize("use", [PresetStore.prompt_of, PresetStore.delete, PresetStore.mark_startup])
def test_missing_preset_is_an_error_with_its_name(theirs, use):
    with pytest.raises(InputError) as caught:
        use(theirs, "dog")
    assert (caught.value.code, caught.value.values) == ("preset_missing", {"name": "dog"})


def test_one_preset_at_a_time_is_the_startup_prompt(theirs, path):
    theirs.mark_startup("cat")
    assert opened(path).startup_name() == "cat"
    theirs.save("cat", "The cat sings.")
    assert kept(path)["default_startup_prompt"] == "The cat sings.", "it follows its preset"
    assert sum(entry.get("is_startup_default", False) for entry in kept(path)["presets"]) == 1


def test_startup_prompt_can_be_unmarked_or_deleted(theirs, path):
    for end in (lambda: theirs.mark_startup(None), lambda: theirs.delete("cat")):
        theirs.mark_startup("cat")
        end()
        assert (opened(path).startup_name(), kept(path)["default_startup_prompt"]) == (None, "")
    for name in theirs.names():
        theirs.delete(name)
    assert theirs.names() == opened(path).names() == [], "the starters do not return"


@pytest.mark.parametrize(
    ("presets", "beside", "expected"),
    [
        (FORERUNNER["presets"], "Something else.", (PREDECESSOR_STARTUP, DANCES)),
        ([], DANCES, (PREDECESSOR_STARTUP, DANCES)),
        ([{"name": PREDECESSOR_STARTUP, "prompt": "Another."}], DANCES, (f"{PREDECESSOR_STARTUP} 2", DANCES)),
        ([{"name": PREDECESSOR_STARTUP, "prompt": DANCES}], DANCES, (PREDECESSOR_STARTUP, DANCES)),
        *(([], blank, (None, None)) for blank in ("", " ", None, 7)),
    ],
)
def test_startup_prompt_beside_the_presets_becomes_one(path, presets, beside, expected):
    store = opened(path, {"presets": presets, "default_startup_prompt": beside})
    name = store.startup_name()
    assert (name, name and store.prompt_of(name)) == expected


def test_change_that_cannot_be_written_is_undone(theirs, path):
    (path.parent / "prompt_presets.json.part").mkdir()  # in the way of the new file
    for change in (lambda: theirs.save("new", "x"), lambda: theirs.delete("cat")):
        with pytest.raises(MachineError, match="cannot_write"):
            change()
    assert theirs.names() == NAMES


def test_the_last_change_can_be_taken_back_once(theirs, path):
    before = kept(path)
    theirs.delete("cat")
    assert theirs.undo(theirs.changes)
    assert not theirs.undo(theirs.changes)
    assert kept(path)["presets"] == before["presets"]
    assert PresetStore(path).names() == theirs.names() == NAMES, "in its old place"
    assert theirs.save("cat", "Another one.")
    change = theirs.changes
    theirs.mark_startup("cat")
    assert not theirs.undo(change), "what came after it would be lost"
    assert theirs.undo(theirs.changes)
    assert (theirs.startup_name(), theirs.prompt_of("cat")) == (PREDECESSOR_STARTUP, "Another one.")


def test_nothing_is_taken_back_where_nothing_was_changed(theirs):
    assert not theirs.undo(theirs.changes)

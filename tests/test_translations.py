"""Every text that the code asks for is there, with exactly the placeholders that it is given."""

import ast
import json
import re
import string
from collections.abc import Iterator

import pytest

from webui.eichi_utils.translations import LOCALES, Translator

ROOT = LOCALES.parent
ERRORS = ("InputError", "MachineError")
WORDS = json.loads((LOCALES / "en.json").read_text("utf-8"))
LANGUAGES = sorted(path.stem for path in LOCALES.glob("*.json"))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """All calls of functions of these names in the code, with the place where each is."""
    for folder in ("diffusers_helper", "webui"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and called_name(node) in names:
                    yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", node


def called_name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def codes(call: ast.Call) -> list[str]:
    """The texts that a call's first argument may be: a literal, or a choice of two."""
    first = call.args[0] if call.args else None
    options = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    return [option.value for option in options if isinstance(option, ast.Constant)]


def raised_errors() -> dict[tuple[str, str], set[str]]:
    """By place and code, the names of the values that each error is raised with."""
    return {
        (place, code): {keyword.arg or "**" for keyword in call.keywords}
        for place, call in calls(*ERRORS)
        for code in codes(call)
    }


def test_every_error_is_raised_with_a_code_that_can_be_read_here():
    unread = [place for place, call in calls(*ERRORS) if not codes(call)]
    assert unread == []
    assert len(raised_errors()) > 50


def test_every_error_has_a_sentence_with_exactly_its_values():
    for (place, code), values in raised_errors().items():
        assert f"error.{code}" in WORDS, place
        assert placeholders(WORDS[f"error.{code}"]) == values, place


def test_no_value_has_the_name_of_a_parameter_that_it_would_be_passed_beside():
    names = {name for text in WORDS.values() for name in placeholders(text)}
    assert names.isdisjoint({"self", "code", "key"})


def test_no_sentence_is_for_an_error_that_is_never_raised():
    raised = {code for _, code in raised_errors()}
    assert {key.removeprefix("error.") for key in WORDS if key.startswith("error.")} - raised == set()


def test_every_notice_has_a_sentence():
    notices = {code for _, call in calls("Notice") for code in codes(call)}
    assert notices
    assert {key.removeprefix("notice.") for key in WORDS if key.startswith("notice.")} == notices


def test_every_text_that_is_asked_for_is_there():
    asked = {(place, code) for place, call in calls("words") for code in codes(call)}
    assert len(asked) > 10
    assert {(place, key) for place, key in asked if key not in WORDS} == set()


@pytest.mark.parametrize("key", sorted(key for key in WORDS if key.startswith("error.")))
def test_an_error_is_one_sentence_that_says_what_to_do(key):
    text = re.sub(r"{[^{}]*}", "x", WORDS[key]).replace("...", "")
    assert text.endswith((".", "?"))
    assert ". " not in text
    assert "\n" not in text
    assert text[0] in 'x"' or text[0].isupper()
    assert any(mark in text for mark in (";", ":", "must ", "Give ")), (
        "it says what is wrong, but not what to do"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_languages_hold_the_same_texts_with_the_same_placeholders(language):
    words = json.loads((LOCALES / f"{language}.json").read_text("utf-8"))
    assert {key: placeholders(text) for key, text in words.items()} == {
        key: placeholders(text) for key, text in WORDS.items()
    }
    assert all(text.strip() == text and text for text in words.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_is_there_twice(language):
    pairs: list[tuple[str, object]] = []
    json.loads((LOCALES / f"{language}.json").read_text("utf-8"), object_pairs_hook=pairs.extend)
    assert len(pairs) == len(dict(pairs))


def test_values_are_put_into_the_text():
    words = Translator("en")
    assert (
        words("error.image_missing", image="a{b}.png")
        == "The picture a{b}.png does not exist; check its name."
    )

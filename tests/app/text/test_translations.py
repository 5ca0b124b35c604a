"""Every text that the code asks for is there, in each language, with exactly the values that it is given.

No text stands anywhere else: not in the code, and not in the page's own files.
"""

import ast
import ctypes
import json
import re
import string
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from diffusers_helper.events import Stage
from webui.eichi_utils.app import STARTERS
from webui.eichi_utils.form import FIELDS, HIDDEN_SETTINGS
from webui.eichi_utils.jobs.job import JobState
from webui.eichi_utils.machine.rules import Level
from webui.eichi_utils.settings import presets
from webui.eichi_utils.text.translations import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    LOCALES,
    Translator,
    language_of,
    system_language,
)

ROOT = LOCALES.parent
ERRORS = ("InputError", "MachineError")
WORDS = json.loads((LOCALES / "en.json").read_text("utf-8"))
STATIC = ROOT / "webui" / "static"
GROUPS = sorted({key.partition(".")[0] for key in WORDS if "." in key})
KEY = re.compile(rf"({'|'.join(GROUPS)})(\.[a-z_0-9]+)+")
FILE = re.compile(r".*\.(js|css|html|json|py|toml|part)")
CJK = re.compile("[\u3001-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uffef]")
KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa]")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """All calls of functions of these names in the code, with the place where each is."""
    for place, node in nodes():
        if isinstance(node, ast.Call) and called_name(node) in names:
            yield place, node


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Everything in the code, with the place where it is."""
    found: list[tuple[str, ast.AST]] = []
    for path in (path for folder in ("diffusers_helper", "webui") for path in (ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text("utf-8"))
        found += [(f"{name}:{getattr(node, 'lineno', 0)}", node) for node in ast.walk(tree)]
    return found


def literals() -> Iterator[tuple[str, str]]:
    """All texts in the code with their places, pieces of f-strings and docstrings among them."""
    for place, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield place, node.value


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


# -- what the code asks for --------------------------------------------------------------------------

FAMILIES = {
    "stage.{}": set(get_args(Stage)),
    "live.state_{}": set(get_args(JobState)),
    "live.ended_{}": set(get_args(JobState)) - {"waiting", "running", "interrupted"},
    "field.{}": {name for name, field in FIELDS.items() if not isinstance(field.default, bool)} - {"mode"}
    | set(HIDDEN_SETTINGS),
    "page.{}": FIELDS.keys() - {"prompt", "seconds", "use_keyframes", "copy_keyframes"},
    "page.{}_info": FIELDS.keys()
    - {"prompt", "seconds", "use_keyframes", "copy_keyframes", "all_padding", "seed"}
    - {"keep_section_videos", "save_section_stills"},
    "preset.{}": set(STARTERS),
    "preset.{}_prompt": set(STARTERS),
    "check.mark.{}": set(get_args(Level)),
    "check.result.{}": set(get_args(Level)),
    "setup.{}": {"asking", "checking"},
    "live.{}": {"show", "up", "remove", "finish", "short", "discard"},
}
"""Keys that are put together, with what may stand in the braces."""
TESTED_ELSEWHERE = {"error.{}", "notice.{}", "check.{}.{}"}
"""Above, and with the rules that make them."""


def families_in_code() -> set[str]:
    """All f-strings that look like keys."""
    found = set()
    for _, node in nodes():
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            text = "".join(map(str, parts))
            if re.fullmatch(rf"({'|'.join(GROUPS)})\.[a-z_.{{}}]+", text) and not FILE.fullmatch(text):
                found.add(text)
    return found


def keys_in_pages() -> set[str]:
    """The keys that the page's own files ask for."""
    texts = [path.read_text("utf-8") for path in STATIC.iterdir() if path.suffix in (".js", ".html")]
    return {match.group() for text in texts for match in KEY.finditer(text) if match.group() in WORDS}


def test_every_literal_that_looks_like_a_key_is_one():
    unknown = {
        (place, text)
        for place, text in literals()
        if KEY.fullmatch(text) and text not in WORDS and not FILE.fullmatch(text) and text[-1] != "_"
    }
    assert unknown == set()


def test_every_key_in_the_pages_own_files_is_one():
    asked = set()
    for path in STATIC.iterdir():
        if path.suffix in (".js", ".html"):
            asked |= set(re.findall(r"""["'`]((?:live|setup|page)\.[a-z_]+)["'`]""", path.read_text("utf-8")))
    assert len(asked) > 10
    assert asked - WORDS.keys() == set()


def test_every_key_that_is_put_together_is_of_a_known_family():
    assert families_in_code() - FAMILIES.keys() - TESTED_ELSEWHERE == {"preset.{}_prompt"} - FAMILIES.keys()


def test_every_member_of_a_family_has_a_text():
    for pattern, members in FAMILIES.items():
        assert {pattern.format(member) for member in members} - WORDS.keys() == set()


def test_no_text_is_never_asked_for():
    used = {text for _, text in literals()} | keys_in_pages()
    used |= {pattern.format(member) for pattern, members in FAMILIES.items() for member in members}
    elsewhere = ("error.", "notice.", "check.")
    assert {key for key in WORDS if key not in used and not key.startswith(elsewhere)} == set()
    assert {key for key in WORDS if re.match(r"check\.(mark|result)\.", key)} <= used


def test_every_text_gets_exactly_the_values_that_it_has_places_for():
    checked = 0
    for place, node in nodes():
        if not isinstance(node, ast.Call) or any(word.arg is None for word in node.keywords):
            continue
        is_asked = called_name(node) == "words"
        keys = [key for key in codes(node) if key in WORDS and (is_asked or "." in key)]
        if not keys:
            continue
        given = {str(word.arg) for word in node.keywords}
        assert given == set().union(*(placeholders(WORDS[key]) for key in keys)), (place, keys)
        checked += 1
    assert checked > 60


def test_no_widget_is_given_a_text_with_places_for_values():
    keys = {word.value.value for _, call in calls("add") for word in call.keywords if is_text(word.value)}
    assert len(keys & WORDS.keys()) > 20
    assert {key for key in keys & WORDS.keys() if placeholders(WORDS[key])} == set()


# -- no text stands anywhere else --------------------------------------------------------------------

SHOWN = ("label", "placeholder", "info", "value", "title", "description", "choices", "submit_btn", "stop_btn")


def is_text(node: ast.AST) -> bool:
    """Whether it is a text with letters, or one that is put together."""
    if isinstance(node, ast.JoinedStr):
        return True
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(re.search(r"\w", node.value))
    )


def test_the_code_holds_no_japanese_or_chinese_text():
    found = {text for _, text in literals() if CJK.search(text)}
    assert found == {presets.FORERUNNER_STARTUP}


def test_no_widget_is_given_a_literal_text():
    widgets, found = 0, []
    for place, node in nodes():
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if getattr(node.func.value, "id", "") != "gr" or not node.func.attr[0].isupper():
            continue
        widgets += 1
        shown = [*node.args, *(word.value for word in node.keywords if word.arg in SHOWN)]
        found += [place for value in shown if is_text(value)]
    assert widgets > 30
    assert found == []


class Markup(HTMLParser):
    """What a piece of HTML would show by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_data(self, data: str) -> None:
        self.shown.append(data.strip())

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shown += [
            value or "" for name, value in attrs if name in ("alt", "title", "aria-label", "placeholder")
        ]


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.html")), ids=lambda path: path.name)
def test_the_pages_own_markup_holds_no_text(path):
    assert set(Markup(path).shown) <= {""}


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_the_pages_own_scripts_hold_no_sentence(path):
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text("utf-8"), flags=re.DOTALL)
    texts = re.findall(r"\"([^\"\n]*)\"|'([^'\n]*)'", code)
    sentences = [text for pair in texts for text in pair if re.search(r"[A-Z][a-z]+ [a-z]+", text)]
    assert sentences == []
    assert not CJK.search(code)


# -- the other languages -----------------------------------------------------------------------------

SAME = {
    "page.title_html",
    "page.teacache",
    "page.extra",
    "live.page_title",
    "live.page_title_running",
    "live.job_with_prompt",
    "check.torch_refuses.fails.do",
    *(f"preset.{name}_prompt" for name in STARTERS),
}
"""Names, bare values, and prompts, which the model reads: they may be the same in every language."""


NEUTRAL = {"check.mark.good", "setup.amount"}
"""Texts that may need no letter of the language."""


def words_of(language: str) -> dict[str, str]:
    words: dict[str, str] = json.loads((LOCALES / f"{language}.json").read_text("utf-8"))
    return words


def test_there_is_a_file_for_each_language_and_no_other():
    assert {path.name for path in LOCALES.iterdir()} == {f"{language}.json" for language in LANGUAGES}


@pytest.mark.parametrize("language", ["ja", "zh-tw"])
def test_another_language_is_another_language(language):
    words = words_of(language)
    assert {key for key in WORDS if words[key] == WORDS[key]} - SAME == set()
    assert {key for key in WORDS if not CJK.search(words[key])} - SAME - NEUTRAL == set()


def test_the_texts_in_chinese_are_not_japanese():
    assert {key for key, text in words_of("zh-tw").items() if KANA.search(text)} - {
        "page.language_name"
    } == set()


def test_the_texts_in_english_hold_no_other_letters():
    assert {key for key, text in WORDS.items() if CJK.search(text)} == set()


@pytest.mark.parametrize("language", ["ja", "zh-tw"])
def test_an_error_in_another_language_is_a_whole_sentence_too(language):
    errors = {key: text for key, text in words_of(language).items() if key.startswith("error.")}
    assert {
        key for key, text in errors.items() if not text.endswith(("\u3002", "\uff1f", "\u3002)", "\uff09"))
    } == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_title_holds_markup(language):
    assert {key for key, text in words_of(language).items() if re.search(r"</?\w+>", text)} == {
        "page.title_html"
    }


def test_each_language_calls_itself_by_its_own_name():
    assert [words_of(language)["page.language_name"] for language in LANGUAGES] == [
        "\u65e5\u672c\u8a9e",
        "English",
        "\u7e41\u9ad4\u4e2d\u6587",
    ]


# -- which language ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("ja", "ja"),
        ("ja_JP", "ja"),
        ("ja_JP.UTF-8", "ja"),
        ("ja-JP", "ja"),
        ("JA_jp.eucJP", "ja"),
        ("Japanese_Japan.932", "ja"),
        ("en", "en"),
        ("en_US.UTF-8", "en"),
        ("en-GB", "en"),
        ("en_US@euro", "en"),
        ("English_United States.1252", "en"),
        ("zh_TW", "zh-tw"),
        ("zh_TW.Big5", "zh-tw"),
        ("zh_HK.UTF-8", "zh-tw"),
        ("zh_MO", "zh-tw"),
        ("zh-Hant", "zh-tw"),
        ("zh_Hant_HK", "zh-tw"),
        ("Chinese (Traditional)_Taiwan.950", "zh-tw"),
        ("Chinese (Traditional)_Hong Kong SAR.950", "zh-tw"),
        ("Chinese_Taiwan.950", "zh-tw"),
        ("Chinese_Hong Kong SAR.950", "zh-tw"),
        ("zh", None),
        ("zh_CN.UTF-8", None),
        ("zh_Hans_CN", None),
        ("zh_Hans_HK", None),
        ("Chinese (Simplified)_China.936", None),
        ("Chinese_China.936", None),
        ("de_DE.UTF-8", None),
        ("jam_JM", None),
        ("enm", None),
        ("C", None),
        ("C.UTF-8", None),
        ("POSIX", None),
        ("", None),
        (".UTF-8", None),
    ],
)
def test_a_systems_name_of_a_language_is_understood(name, language):
    assert language_of(name) == language


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh-tw"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW", "LC_ALL": "ja_JP"}, "ja"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": ""}, "en"),
        ({"LANG": "de_DE.UTF-8"}, DEFAULT_LANGUAGE),
        ({}, DEFAULT_LANGUAGE),
    ],
)
def test_the_systems_language_is_the_one_of_its_messages(monkeypatch, variables, language):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert system_language() == language


@pytest.mark.parametrize(
    ("number", "language"),
    [
        (0x0411, "ja"),
        (0x0409, "en"),
        (0x0809, "en"),
        (0x0404, "zh-tw"),
        (0x0C04, "zh-tw"),
        (0x0804, DEFAULT_LANGUAGE),
        (0x0407, DEFAULT_LANGUAGE),
        (0xFFFF, DEFAULT_LANGUAGE),
    ],
)
def test_windows_tells_its_language_by_a_number(monkeypatch, number, language):
    kernel = SimpleNamespace(GetUserDefaultUILanguage=lambda: number)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setenv("LANG", "zh_TW.UTF-8")
    assert system_language() == language

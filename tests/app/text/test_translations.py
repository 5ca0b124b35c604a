"""The texts: each language holds the same, with the same places for values, and the page shows no others."""

import ctypes
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from diffusers_helper.errors import ErrorCode, InputError
from diffusers_helper.events import NoticeCode, Stage
from tests.support import error_values
from tests.support.error_values import WORDS, checked_values, placeholders
from webui.eichi_utils.app import STARTERS
from webui.eichi_utils.form import FIELDS, HIDDEN_SETTINGS
from webui.eichi_utils.jobs.job import JobState
from webui.eichi_utils.machine.rules import Level
from webui.eichi_utils.page import state
from webui.eichi_utils.text.translations import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    LOCALES,
    Translator,
    language_of,
    system_language,
)

ROOT = LOCALES.parent
STATIC = ROOT / "webui" / "static"
CJK = re.compile("[\u3001-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uffef]")
KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa]")


def keys_of(group: str) -> set[str]:
    return {key.removeprefix(f"{group}.") for key in WORDS if key.startswith(f"{group}.")}


def test_every_error_and_notice_has_a_sentence():
    assert keys_of("error") == {code for part in get_args(ErrorCode) for code in get_args(part)}
    assert keys_of("notice") == set(get_args(NoticeCode))


@pytest.mark.parametrize(
    ("values", "is_wrong"), [({"image": "a"}, False), ({}, True), ({"image": "a", "path": "b"}, True)]
)
def test_an_error_without_its_sentences_values_is_found(monkeypatch, values, is_wrong):
    monkeypatch.setattr(error_values, "OUR_FOLDERS", (str(Path(__file__).parent),))
    with checked_values() as found:
        InputError("image_missing", **values)
    assert bool(found) is is_wrong


def test_no_value_has_the_name_of_a_parameter():
    names = {name for text in WORDS.values() for name in placeholders(text)}
    assert names.isdisjoint({"self", "code", "key"})


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
def test_all_languages_have_the_same_keys_and_placeholders(language):
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


# -- texts that the app asks for ---------------------------------------------------------------------

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
"""Keys that are put together, with the values that may stand in the braces."""


def test_every_member_of_a_family_has_a_text():
    for pattern, members in FAMILIES.items():
        assert {pattern.format(member) for member in members} - WORDS.keys() == set()


PAGE = """
import json, re, sys
from pathlib import Path
from tests.support.page_options import options
from webui.eichi_utils.app import open_app
from webui.eichi_utils.page.page import build_page
from webui.eichi_utils.text import translations

load = translations._load
translations._load = lambda language: {key: f"[{text}]" for key, text in load(language).items()}
with open_app(options(Path(sys.argv[1]))) as app:
    widgets = build_page(app).get_config_file()["components"]
shown = []
for widget in widgets:
    values = widget["props"]
    if widget["type"] == "api" or values.get("visible", True) is not True:
        continue
    names = ["label", "placeholder", "info", "title", "description", "submit_btn", "stop_btn"]
    names += ["value"] if widget["type"] in ("button", "html", "markdown") else []
    shown += [values.get(name) for name in names] + [label for label, _ in values.get("choices") or ()]
texts = (re.sub(r"<[^>]*>", "", text).strip() for text in shown if isinstance(text, str))
print(json.dumps([text for text in texts if text]))
"""


def test_the_page_shows_only_texts_of_the_locales(tmp_path):
    """Each text of the locales is put into brackets. In a process of its own: gradio leaves things open."""
    program = [sys.executable, "-c", PAGE, str(tmp_path)]
    shown = json.loads(subprocess.run(program, cwd=ROOT, capture_output=True, check=True).stdout)
    assert len(shown) > 60
    assert [text for text in shown if text[0] + text[-1] != "[]"] == []
    assert [text for text in shown if placeholders(text)] == []


class Markup(HTMLParser):
    """The texts that a piece of HTML shows by itself, and the keys of those that the page puts in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.keys: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_data(self, data: str) -> None:
        self.shown.append(data.strip())

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shown += [
            value or "" for name, value in attrs if name in ("alt", "title", "aria-label", "placeholder")
        ]
        self.keys |= {value or "" for name, value in attrs if name in ("data-ichi-text", "data-ichi-label")}


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.html")), ids=lambda path: path.name)
def test_the_markup_holds_keys_instead_of_texts(path):
    markup = Markup(path)
    assert set(markup.shown) <= {""}
    assert markup.keys <= set(state.WORDS)


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


def test_each_language_has_a_file():
    assert {path.name for path in LOCALES.iterdir()} == {f"{language}.json" for language in LANGUAGES}


@pytest.mark.parametrize("language", ["ja", "zh-tw"])
def test_another_language_is_another_language(language):
    words = words_of(language)
    assert {key for key in WORDS if words[key] == WORDS[key]} - SAME == set()
    assert {key for key in WORDS if not CJK.search(words[key])} - SAME - NEUTRAL == set()


def test_chinese_texts_are_not_japanese():
    assert {key for key, text in words_of("zh-tw").items() if KANA.search(text)} - {
        "page.language_name"
    } == set()


def test_english_texts_hold_no_other_letters():
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
def test_a_locales_name_means_a_language(name, language):
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
def test_linux_takes_the_language_of_its_messages(monkeypatch, variables, language):
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
def test_windows_reports_its_language_as_a_number(monkeypatch, number, language):
    kernel = SimpleNamespace(GetUserDefaultUILanguage=lambda: number)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setenv("LANG", "zh_TW.UTF-8")
    assert system_language() == language

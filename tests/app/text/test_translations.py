"""The texts: each language holds the same, with the same places for values, and the page shows no others."""

import json
import os
import re
from pathlib import Path
from typing import get_args

import pytest

from diffusers_helper.errors import ErrorCode, InputError
from diffusers_helper.events import NoticeCode, Stage
from diffusers_helper.report import Part
from tests.support import error_values
from tests.support.error_values import WORDS, checked_values, placeholders
from webui.eichi_utils.app import STARTERS
from webui.eichi_utils.form import FIELDS, HIDDEN_SETTINGS
from webui.eichi_utils.jobs.job import JobState
from webui.eichi_utils.machine.rules import Level
from webui.eichi_utils.page.state import TOPICS
from webui.eichi_utils.text.durations import format_duration
from webui.eichi_utils.text.translations import (
    DEFAULT_LANGUAGE,
    LANGUAGES,
    LOCALES,
    Translator,
    system_language,
)

ROOT = LOCALES.parent
CJK = re.compile("[\u3001-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uffef]")
KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa]")


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
def test_an_error_says_what_is_wrong_and_then_what_to_do(key):
    text = re.sub(r"{[^{}]*}", "x", WORDS[key]).replace("...", "")
    assert text.endswith((".", "?"))
    assert not set(text) & {";", "\n"}
    sentences = re.split(r"(?<=[.?]) ", text)
    assert len(sentences) <= 3
    assert all(sentence[0] in 'x"-' or sentence[0].isupper() for sentence in sentences)
    is_enough = " must " in text or text.startswith(("Give ", "Choose "))
    assert len(sentences) > 1 or is_enough, "it says what is wrong, but not what to do"


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_languages_have_the_same_keys_and_placeholders(language):
    pairs: list[tuple[str, str]] = []
    json.loads((LOCALES / f"{language}.json").read_text("utf-8"), object_pairs_hook=pairs.extend)
    words = dict(pairs)
    assert len(pairs) == len(words), "no key is there twice"
    assert {key: placeholders(text) for key, text in words.items()} == {
        key: placeholders(text) for key, text in WORDS.items()
    }
    assert all(text.strip() == text and text for text in words.values())
    markup = {key for key, text in words.items() if re.search(r"</?\w+>", text)}
    assert markup == {"page.title", *(key for key in words if key.startswith("page.group_"))}


# -- texts that the app asks for ---------------------------------------------------------------------

SEEN_FIRST = {"join", "prompt", "seconds", "use_keyframes", "copy_keyframes"}
WITHOUT_INFO = {"all_padding", "seed", "keep_section_videos", "save_section_stills"}
NUMBERS = {name for name, field in FIELDS.items() if not isinstance(field.default, bool)}
FAMILIES = {
    "error.{}": {code for part in get_args(ErrorCode) for code in get_args(part)},
    "notice.{}": set(get_args(NoticeCode)),
    "stage.{}": set(get_args(Stage)),
    "report.part.{}": set(get_args(Part)),
    "live.state_{}": set(get_args(JobState)),
    "live.ended_{}": set(get_args(JobState)) - {"waiting", "running", "interrupted"},
    "field.{}": NUMBERS | set(HIDDEN_SETTINGS),
    "page.{}": FIELDS.keys() - SEEN_FIRST,
    "page.{}_info": FIELDS.keys() - SEEN_FIRST - WITHOUT_INFO,
    "preset.{}": set(STARTERS),
    "preset.{}_prompt": set(STARTERS),
    "check.mark.{}": set(get_args(Level)),
    "check.result.{}": set(get_args(Level)),
    "setup.{}": {"asking", "checking"},
    "setup.topic_{}": set(TOPICS.values()),
    "live.{}": {"show", "up", "remove", "finish", "short", "discard"},
}
"""Keys that are put together, with the values that may stand in the braces."""


def test_a_name_of_any_bytes_becomes_a_text_that_can_be_sent():
    path = os.fsdecode(b"caf\xe9")
    for language in LANGUAGES:
        text = Translator(language)("error.disk_full", path=path)
        assert "caf" in text.encode("utf-8").decode()


def test_every_line_of_the_check_has_a_topic():
    codes = {key.split(".")[1] for key in WORDS if re.fullmatch(r"check\.\w+\.(slow|fails)", key)}
    first_words = {code.partition("_")[0] for code in codes - {"mark", "result"}}
    assert first_words == TOPICS.keys()


def test_every_member_of_a_family_has_a_text():
    for pattern, members in FAMILIES.items():
        assert {pattern.format(member) for member in members} - WORDS.keys() == set()
    for group in ("error", "notice"):
        assert {key for key in WORDS if key.startswith(f"{group}.")} == {
            f"{group}.{member}" for member in FAMILIES[group + ".{}"]
        }


# -- the other languages -----------------------------------------------------------------------------

SAME = {
    "page.title",
    "page.teacache",
    "page.extra",
    "live.page_title",
    "live.page_title_running",
    "live.job_with_prompt",
    "check.torch_refuses.fails.do",
    *(f"preset.{name}_prompt" for name in STARTERS),
}
"""Names, bare values, and prompts, which the model reads: they may be the same in every language."""


TOPIC_NAMES = {f"setup.topic_{name}" for name in ("gpu", "python", "torch")}
SAME |= TOPIC_NAMES
NEUTRAL = {"check.mark.good", "setup.amount"} | TOPIC_NAMES
"""Texts that may need no letter of the language."""


OF_LANGUAGE = {path.stem: json.loads(path.read_text("utf-8")) for path in LOCALES.iterdir()}


def test_each_language_has_a_file_and_calls_itself_by_its_name():
    names = {language: words["page.language_name"] for language, words in OF_LANGUAGE.items()}
    assert names == {"ja": "日本語", "en": "English", "zh-tw": "繁體中文"}
    assert names.keys() == set(LANGUAGES)


@pytest.mark.parametrize("language", ["ja", "zh-tw"])
def test_another_language_is_another_language(language):
    words = OF_LANGUAGE[language]
    assert {key for key in WORDS if words[key] == WORDS[key]} - SAME == set()
    assert {key for key in WORDS if not CJK.search(words[key])} - SAME - NEUTRAL == set()
    errors = {key: text for key, text in words.items() if key.startswith("error.")}
    ends = ("。", "？", "。)", "）")
    assert {key for key, text in errors.items() if not text.endswith(ends)} == set(), "a whole sentence, too"


def test_no_language_has_letters_of_another():
    kana = {key for key, text in OF_LANGUAGE["zh-tw"].items() if KANA.search(text)}
    assert kana - {"page.language_name"} == set()
    assert {key for key, text in WORDS.items() if CJK.search(text)} == set()


ONE_SPELLING = {
    "ja": r"(フォルダ|ブラウザ|ユーザ|ドライバ|エンコーダ|デコーダ)(?!ー)|メモリー|パソコン|中止|カード",
    "en": r"\b([Cc]ards?|[Gg]raphics|of 8 bits|anew)\b",
    "zh-tw": r"愈|文件夾|視頻|默認",
}
"""Other words for what one word stands for everywhere, by language."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_word_has_one_spelling(language):
    pattern = re.compile(ONE_SPELLING[language])
    shown = {key: re.sub(r"{[^{}]*}", "", text) for key, text in OF_LANGUAGE[language].items()}
    found = {key: match.group() for key, text in shown.items() if (match := pattern.search(text))}
    assert found == {}


def test_japanese_keeps_cause_and_remedy_apart():
    long = re.compile("ので[^。]*(ください|ましょう)")
    assert {key for key, text in OF_LANGUAGE["ja"].items() if long.search(text)} == set()


# -- which language ----------------------------------------------------------------------------------


LOCALE_NAMES = {
    "ja": ["ja", "ja_JP", "ja_JP.UTF-8", "ja-JP", "JA_jp.eucJP", "Japanese_Japan.932"],
    "en": ["en", "en_US.UTF-8", "en-GB", "en_US@euro", "English_United States.1252"],
    "zh-tw": [
        *("zh_TW", "zh_TW.Big5", "zh_HK.UTF-8", "zh_MO", "zh-Hant", "zh_Hant_HK", "Chinese_Taiwan.950"),
        *("Chinese (Traditional)_Taiwan.950", "Chinese (Traditional)_Hong Kong SAR.950"),
        "Chinese_Hong Kong SAR.950",
    ],
    None: [
        *("zh", "zh_CN.UTF-8", "zh_Hans_CN", "zh_Hans_HK", "Chinese (Simplified)_China.936"),
        *("Chinese_China.936", "de_DE.UTF-8", "jam_JM", "enm", "C", "C.UTF-8", "POSIX", "", ".UTF-8"),
    ],
}


@pytest.mark.parametrize("language", LOCALE_NAMES)
def test_a_locales_name_means_a_language(language, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in LOCALE_NAMES[language]:
        monkeypatch.setenv("LC_ALL", name)
        monkeypatch.setenv("LANG", name)
        assert system_language() == (language or DEFAULT_LANGUAGE), name


def test_linux_takes_the_language_of_its_messages(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value, language in (
        ("LANG", "en_US.UTF-8", "en"),
        ("LC_ALL", "", "en"),
        ("LC_MESSAGES", "zh_TW", "zh-tw"),
        ("LC_ALL", "ja_JP", "ja"),
    ):
        monkeypatch.setenv(name, value)
        assert system_language() == language, "the last ones win"


def test_windows_reports_its_language_as_a_number(windows, monkeypatch):
    numbers = {0x0411: "ja", 0x0409: "en", 0x0809: "en", 0x0404: "zh-tw", 0x0C04: "zh-tw"}
    numbers |= dict.fromkeys((0x0804, 0x0407, 0xFFFF), DEFAULT_LANGUAGE)
    monkeypatch.setenv("LANG", "zh_TW.UTF-8")
    for number, language in numbers.items():
        windows.kernel32.GetUserDefaultUILanguage.return_value = number
        assert system_language() == language, number


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ((-3, 0, 0.4), "1 s"),
        ((1.6,), "2 s"),
        ((59.4,), "59 s"),
        ((59.6, 64), "1 min"),
        ((66,), "1 min 10 s"),
        ((329,), "5 min"),
        ((330, 389), "6 min"),
        ((599, 600, 629), "10 min"),
        ((3569,), "59 min"),
        ((3571, 3600), "1 h"),
        ((5430,), "1 h 30 min"),
        ((86400,), "24 h"),
    ],
)
def test_a_length_is_told_in_units_that_still_help(lengths, text):
    assert {format_duration(seconds, Translator("en")) for seconds in lengths} == {text}

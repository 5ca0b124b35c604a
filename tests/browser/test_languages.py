"""The page in each of its languages: complete, switched without a reload, remembered."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.driver import Screen
from tests.support.app import App
from webui.eichi_utils.text.translations import Translator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(new_app: App) -> App:
    return new_app


LANGUAGES = {"ja": "ja", "en": "en", "zh-tw": "zh-Hant-TW"}
NAMES = ("Endframe Ichi", "English", "TeaCache", "Distilled CFG", "MP4", "webui", "outputs")
NAMES += ("The woman turns around and smiles.",)
"""Texts that are the same in every language."""
CLOSE_BUTTON = {"ja": "閉じる", "zh-tw": "關閉"}


def words_of(screen: Screen) -> str:
    """Every word that is seen or read aloud, without names."""
    text: str = screen.page.evaluate("inside.words()")
    for name in NAMES:
        text = text.replace(name, "")
    return text


def latin_words(text: str) -> list[str]:
    """Words of three Latin letters or more, except those of pixels, keys and names of jobs."""
    return [word for word in re.findall(r"[A-Za-z]{3,}", text) if word not in ("PNG", "CPU", "GPU")]


def switch(screen: Screen, language: str) -> None:
    screen.choose_language(language)
    screen.page.wait_for_function("lang => document.documentElement.lang === lang", arg=LANGUAGES[language])
    screen.page.wait_for_function("language => ichi.pageLanguage() === language", arg=language)
    screen.settle()


@pytest.mark.parametrize("language", ["ja", pytest.param("zh-tw", marks=pytest.mark.slow)])
def test_no_english_word_is_left(app: App, open_tab, pictures, language):
    more = {"use_keyframes": True, "random_seed": False}
    app.keep_settings(language=language, loop=True, seconds=2.5, **more)
    tab = open_tab(app)  # in a browser whose own language is English
    tab.put("start-image", pictures["red"])
    tab.open_presets()
    expect(tab.page.locator("#section-1")).to_be_visible()
    tab.page.wait_for_function("!document.body.innerHTML.includes('aria-label=\"Upload file\"')")
    assert latin_words(words_of(tab)) == []

    tab.put("inbox-box", pictures["red"], pictures["blue"])
    tab.page.click("#apply-preset")
    expect(tab.page.locator("#ichi-toast-close")).to_have_attribute("aria-label", CLOSE_BUTTON[language])
    expect(tab.message).to_have_text(Translator(language)("error.choose_preset"))
    expect(tab.page.locator("#several-images [aria-label='Clear']")).to_have_count(0)
    assert latin_words(words_of(tab)) == []


def test_a_switch_changes_every_word_at_once_and_is_kept(screen: Screen, app: App, open_tab, pictures):
    screen.put("start-image", pictures["red"])
    screen.set("prompt", "stays")
    screen.page.evaluate("window.isSame = true")
    told = [words_of(screen)]
    for language, frames in (("ja", "37 フレーム"), ("zh-tw", "37")):
        switch(screen, language)
        expect(screen.page.locator("#outlook p")).to_contain_text(frames)
        expect(screen.page.locator("#seconds-choice [data-testid=block-info]")).to_have_text(
            Translator(language)("page.seconds")
        )
        told.append(words_of(screen))
    assert len(set(told)) == 3
    assert screen.page.evaluate("window.isSame") is True
    assert screen.value("prompt") == "stays"
    assert screen.picture("start-image")

    screen.wait_until(lambda: app.kept_settings()["language"] == "zh-tw", "the language is kept")
    other = open_tab(app)
    assert other.page.input_value("#ichi-language") == "zh-tw"
    assert other.text("start") == screen.text("start")
    assert other.page.evaluate("document.documentElement.lang") == "zh-Hant-TW"

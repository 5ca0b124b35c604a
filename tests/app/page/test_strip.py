"""The strip of the newest videos in words."""

import json
import os
from pathlib import Path

import pytest

from webui.eichi_utils.page.strip import ACTIONS, SHOWN_PROMPT, strip_state
from webui.eichi_utils.recent_videos import RecentVideo
from webui.eichi_utils.text.translations import LANGUAGES, Translator


def video(name: str = "a.mp4", prompt: str = "A cat.", has_settings: bool = True) -> RecentVideo:
    return RecentVideo("0123456789abcdef", Path("/private") / name, prompt, has_settings, 64, 96, 37)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_video_is_named_in_the_pages_language_without_its_folder(language):
    words = Translator(language)
    state = strip_state((video("猫.mp4"),), words)
    (item,) = state["videos"]
    assert state["title"] == words("strip.title")
    assert item["caption"] == words(
        "strip.caption", name="猫", frames=37, seconds="1.23", width=96, height=64
    )
    assert item["play"] == words("strip.play", name="猫", prompt="A cat.")
    assert list(item["actions"].values()) == [words(key) for key in ACTIONS.values()]
    assert "private" not in json.dumps(state)


def test_a_video_without_its_request_offers_no_settings():
    (item,) = strip_state((video(prompt="", has_settings=False),), Translator("en"))["videos"]
    assert list(item["actions"]) == ["continue", "folder"]
    assert item["play"] == "Play: a", "of whose prompt nothing is known"


def test_odd_names_and_prompts_can_be_sent():
    odd = video(os.fsdecode(b"caf\xe9.mp4"), "a\n\nb " * 1000)
    (item,) = strip_state((odd,), Translator("en"))["videos"]
    assert json.dumps(item, ensure_ascii=False).encode("utf-8")
    assert "a b a b" in item["play"]
    assert len(item["play"]) < SHOWN_PROMPT + 40

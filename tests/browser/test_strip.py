"""The strip of the newest videos: what the output folder holds, and what can be done with each."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from diffusers_helper.media.embedded_request import LEFT_OUT, pack_request, to_comment
from diffusers_helper.media.packed_picture import read_fitted
from diffusers_helper.media.video import write_mp4
from diffusers_helper.request import GenerationRequest
from tests.browser.conftest import Open
from tests.browser.driver import NO_ANSWER, WORDS, Screen
from tests.support.app import App

NAMES = ["猫 #1 100%&.mp4", "boat.mp4", "secret.mp4"]
TALL = "secret.mp4"


@pytest.fixture(scope="module")
def full(new_app: App, tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app whose folder holds three videos of ours, the last without its request, and other files."""
    picture = str(tmp_path_factory.mktemp("picture") / "photo.png")
    Image.effect_noise((300, 200), 50).convert("RGB").save(picture)
    new_app.outputs.mkdir(exist_ok=True)
    for age, name in enumerate(NAMES):
        fitted = read_fitted(picture, *((160, 64) if name == TALL else (64, 96)))
        request = GenerationRequest(picture, prompt=f"A {name[0]}.", seed=100 + age, resolution=64)
        packed = pack_request(request, {picture: fitted}, 100 + age)
        comment = LEFT_OUT if name == "secret.mp4" else to_comment(packed)
        write_mp4(path := new_app.outputs / name, [np.roll(fitted, age * 9, 1)] * 37, crf=30, comment=comment)
        os.utime(path, (time.time() - 60 * (age + 1),) * 2)
    write_mp4(new_app.outputs / "holiday.mp4", [fitted], crf=30, comment="")
    (new_app.outputs / "broken.mp4").write_bytes(b"\0" * 1000)
    return new_app


@pytest.fixture
def tab(full: App, open_tab: Open) -> Screen:
    full.keep_settings()
    screen = open_tab(full)
    expect(items(screen)).to_have_count(len(NAMES))
    return screen


def items(screen: Screen) -> Locator:
    return screen.page.locator("#ichi-strip li")


def button(screen: Screen, number: int, action: str) -> Locator:
    return items(screen).nth(number).locator(f"[data-action={action}]")


def places(screen: Screen) -> Any:
    """The places of the other parts of the page."""
    return screen.page.evaluate(
        "['start-image', 'prompt', 'start', 'ichi-screen'].map(id => document.getElementById(id).offsetTop)"
    )


def test_the_videos_of_the_folder_stand_there_with_their_pictures_and_names(tab: Screen):
    for number, name in enumerate(NAMES):
        image = items(tab).nth(number).locator("img")
        key = "strip.play_name" if name == "secret.mp4" else "strip.play"
        expect(image).to_have_attribute("alt", WORDS(key, name=Path(name).stem, prompt=f"A {name[0]}."))
        tab.wait_until(lambda image=image: image.evaluate("image => image.naturalWidth") > 0, "it is there")
    expect(button(tab, 2, "settings")).to_be_hidden()
    expect(tab.page.get_by_role("button", name="Play: boat (A b.)")).to_be_visible()
    missing = "[...document.querySelectorAll('#ichi-strip button')].filter(b => !b.title).length"
    assert tab.page.evaluate(missing) <= 1, "the hidden one"


def test_a_video_plays_in_the_place_of_the_result(tab: Screen):
    before = places(tab)
    button(tab, 1, "play").click()
    expect(tab.page.locator("#ichi-caption")).to_have_text(
        WORDS("strip.caption", name="boat", frames=37, seconds="1.23", width=96, height=64)
    )
    tab.page.wait_for_function("document.getElementById('ichi-video').currentTime > 0.1")
    expect(items(tab).nth(1)).to_have_class("ichi-shown")
    expect(button(tab, 1, "play")).to_be_focused()
    expect(button(tab, 0, "play").locator("img")).to_be_visible()
    assert places(tab) == before


def test_its_settings_and_whole_picture_come_back_with_a_seed_that_is_named_so(tab: Screen, pictures):
    button(tab, 0, "settings").focus()
    with tab.asking():
        tab.page.keyboard.press("Enter")
    expect(tab.message).to_have_text(WORDS("page.restored"))
    assert tab.value("prompt") == "A 猫."
    assert (tab.outlook().width, tab.outlook().height) == (96, 64)
    shown = tab.page.locator("#start-image img")
    tab.wait_until(lambda: shown.evaluate("image => image.naturalWidth") == 300, "it is the whole picture")
    tab.open_panel()
    seed = tab.page.locator("#seed")
    expect(seed).to_contain_text(WORDS("page.seed_from_video"))
    assert (tab.value("seed"), tab.is_ticked("random-seed")) == ("100", False)
    tab.set("resolution", 128)
    tab.wait_until(lambda: tab.outlook().width > 96, "it can be made large")
    expect(seed).to_contain_text(WORDS("page.seed_from_video"))
    tab.put("start-image", pictures["red"])
    expect(seed).not_to_contain_text(WORDS("page.seed_from_video"))
    assert tab.is_ticked("random-seed")


def test_it_is_continued_at_its_end(tab: Screen):
    with tab.asking():
        button(tab, 2, "continue").click()
    expect(tab.message).to_have_text(WORDS("page.continued"))
    tab.wait_until(lambda: "continued" in tab.picture("start-image"), "its last frame is there")


def test_without_a_screen_the_page_says_where_it_lies(tab: Screen, full: App):
    button(tab, 1, "folder").click()
    expect(tab.message).to_have_text(WORDS("page.folder_is", path=full.outputs))


def test_what_is_deleted_or_comes_is_seen_on_an_open_page_at_once(tab: Screen, full: App):
    before, path = places(tab), full.outputs / "boat.mp4"
    content, moved, made = path.read_bytes(), full.outputs / "newest.mp4", path.stat().st_mtime
    button(tab, 1, "play").click()
    begun = time.monotonic()
    tab.trouble.allow("status of 404 .*/video.mp4")  # the browser may still be reading it
    path.unlink()
    expect(items(tab)).to_have_count(2)
    assert time.monotonic() - begun < 5
    expect(tab.page.locator("#ichi-video")).to_be_hidden()
    assert tab.page.evaluate("document.activeElement.closest('#ichi-strip') !== null")
    moved.write_bytes(content)
    expect(items(tab)).to_have_count(3)
    expect(items(tab).first.locator("img")).to_have_attribute("alt", "Play: newest (A b.)")
    assert places(tab) == before
    moved.rename(path)
    os.utime(path, (made, made))
    expect(items(tab).first.locator("img")).to_have_attribute("alt", "Play: 猫 #1 100%& (A 猫.)")


@pytest.mark.slow
def test_a_video_that_is_made_comes_first_and_stays_after_a_restart(tab: Screen, full: App, pictures):
    tab.put("start-image", pictures["red"])
    tab.make_video()
    expect(items(tab)).to_have_count(len(NAMES) + 1)
    newest = max(full.videos(), key=lambda path: path.stat().st_mtime).stem
    name = WORDS("strip.play_name", name=newest)
    expect(items(tab).first.locator("img")).to_have_attribute("alt", name)
    expect(items(tab).first).to_have_class("ichi-shown")
    tab.trouble.allow(NO_ANSWER)
    tab.page.evaluate("window.isOld = true")
    full.stop()
    full.start()
    tab.page.wait_for_function("!window.isOld && document.getElementById('start')")  # it loads itself anew
    expect(items(tab).first.locator("img")).to_have_attribute("alt", name)
    button(tab, 0, "play").click()
    expect(tab.page.locator("#ichi-caption")).to_contain_text(newest)
    tab.trouble.allow("status of 404 .*/video.mp4")  # the browser may still be reading it
    (full.outputs / f"{newest}.mp4").unlink()
    expect(items(tab)).to_have_count(len(NAMES))


@pytest.mark.slow
def test_a_job_whose_video_is_deleted_leaves_the_stage_and_the_list(tab: Screen, full: App, pictures):
    made, captions, shown = [], [], tab.page.locator("#ichi-video")
    rows, caption = tab.page.locator("#ichi-queue > li"), tab.page.locator("#ichi-caption")
    tab.trouble.allow("status of 404 .*/video")  # the browser may still be reading it
    for name in ("red", "blue"):
        before = rows.count()
        tab.put("start-image", pictures[name])
        captions.append(tab.make_video())
        made.append(max(full.videos(), key=lambda path: path.stat().st_mtime))
        expect(rows).to_have_count(before + 1)
    away = made[1].rename(full.home / "away.mp4")
    expect(rows).to_have_count(before)
    expect(caption).to_have_text(captions[0])
    expect(shown).to_have_js_property("error", None)
    tab.put("start-image", pictures["green"])
    expect(shown).to_be_hidden()
    away.rename(made[1])
    expect(rows).to_have_count(before + 1)
    made[0].unlink()
    expect(rows).to_have_count(before)
    expect(shown).to_be_hidden()
    expect(tab.page.locator("#ichi-picture")).to_be_visible()
    button(tab, 0, "play").click()
    expect(caption).to_have_text(captions[1])
    made[1].unlink()
    expect(rows).to_have_count(before - 1)
    expect(tab.page.locator("#ichi-picture")).to_be_visible()
    expect(tab.page.locator("#continue")).to_be_hidden()


@pytest.mark.parametrize("size", [(1280, 800), (420, 860)])
def test_a_tall_video_is_whole_and_in_sight_when_it_is_played(tab: Screen, size):
    tab.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    items(tab).nth(2).scroll_into_view_if_needed()
    button(tab, 2, "play").click()
    expect(tab.page.locator("#ichi-video")).to_have_js_property("videoHeight", 160)
    video, stage = (tab.page.locator(f"#ichi-{name}").bounding_box() for name in ("video", "screen"))
    assert video == stage, "the picture fits into it by itself"
    assert stage is not None
    assert stage["y"] >= 0
    assert stage["y"] + stage["height"] <= size[1]


def test_what_needs_settings_is_offered_where_there_are_some_alone(tab: Screen):
    again, settings, proceed = (
        tab.page.locator(f"#{name}") for name in ("again", "take-settings", "continue")
    )
    for number, has_settings in ((0, True), (2, False)):
        button(tab, number, "play").click()
        expect(proceed).to_be_visible()
        expect(again).to_be_visible(visible=has_settings)
        expect(settings).to_be_visible(visible=has_settings)

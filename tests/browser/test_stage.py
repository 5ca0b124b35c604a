"""The stage: an invitation, the picture with the part that becomes the video, and the form's conveniences."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FloatRect, expect

from diffusers_helper.media.embedded_request import load_request
from tests.browser.driver import WORDS, Screen
from tests.support.app import App
from webui.eichi_utils.page.job_handlers import SAMPLE_PROMPT
from webui.eichi_utils.text.translations import Translator

FRAME_SHAPES = {"wide": (200, 64), "high": (64, 200)}
"""Pictures of which something sticks out to the sides, or above and below."""


@pytest.fixture(scope="module")
def app(new_app: App) -> App:
    return new_app


def box(screen: Screen, name: str) -> FloatRect:
    found = screen.page.locator(f"#{name}").bounding_box()
    assert found is not None, name
    return found


def test_the_sample_becomes_a_video_with_one_click(app: App, screen: Screen):
    expect(screen.page.locator("#ichi-empty strong")).to_have_text(WORDS("live.invitation"))
    screen.set("prompt", "My own words.")
    screen.page.click("#ichi-sample")
    expect(screen.page.locator("#ichi-toast")).to_contain_text(WORDS("page.sample_used"))
    screen.wait_until_running()
    expect(screen.page.locator("#ichi-empty")).to_be_hidden()
    assert screen.value("prompt") == SAMPLE_PROMPT
    screen.click_undo()
    screen.wait_until(lambda: screen.value("prompt") == "My own words.", "the prompt is back")
    screen.wait_for_result()
    request = load_request(app.videos()[-1])
    assert request.prompt == SAMPLE_PROMPT
    assert "coffee" in screen.picture("start-image")


def test_a_double_click_on_its_settings_takes_them_once_with_an_undo(screen: Screen):
    screen.set("prompt", "Mine.")
    expect(screen.page.locator("#take-settings")).to_be_visible()
    screen.page.dblclick("#take-settings")
    screen.wait_until(lambda: screen.value("prompt") == SAMPLE_PROMPT, "the settings of the sample")
    screen.settle()
    screen.click_undo()
    screen.wait_until(lambda: screen.value("prompt") == "Mine.", "the prompt is back")


@pytest.mark.parametrize("shape", ["wide", pytest.param("high", marks=pytest.mark.slow)])
def test_the_part_that_becomes_the_video_is_moved_by_mouse_and_keys(app, screen: Screen, tmp_path, shape):
    picture = tmp_path / "picture.png"
    Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (*FRAME_SHAPES[shape][::-1], 3), np.uint8)
    ).save(picture)
    screen.put("start-image", picture)
    expect(screen.page.locator("#ichi-crop")).to_be_visible()
    outlook, frame, crop = screen.outlook(), box(screen, "ichi-frame"), box(screen, "ichi-crop")
    assert frame["width"] / frame["height"] == pytest.approx(
        FRAME_SHAPES[shape][0] / FRAME_SHAPES[shape][1], 0.02
    )
    assert crop["width"] / crop["height"] == pytest.approx(outlook.width / outlook.height, 0.02)
    axis, side = ("x", "width") if shape == "wide" else ("y", "height")
    room = frame[side] - crop[side]  # type: ignore[literal-required]
    middle = crop["x"] + crop["width"] / 2, crop["y"] + crop["height"] / 2
    mouse = screen.page.mouse
    with screen.asking():
        mouse.move(*middle)
        mouse.down()
        mouse.move(middle[0] - (room / 4 if axis == "x" else 0), middle[1] - (room / 4 if axis == "y" else 0))
        mouse.up()
    assert box(screen, "ichi-crop")[axis] - frame[axis] == pytest.approx(room / 4, abs=2)  # type: ignore[literal-required]
    with screen.asking():
        screen.page.keyboard.press("End")
    assert box(screen, "ichi-crop")[axis] - frame[axis] == pytest.approx(room, abs=2)  # type: ignore[literal-required]
    screen.make_video()
    assert load_request(app.videos()[-1]).crop_position == 1
    screen.reload()
    assert screen.page.input_value("#position input") == "1"


def test_another_picture_begins_in_the_middle(screen: Screen, pictures: dict[str, Path]):
    screen.put("start-image", pictures["yellow"])
    expect(screen.page.locator("#ichi-crop[data-axis=x]")).to_be_visible()
    screen.page.focus("#ichi-crop")
    with screen.asking():
        screen.page.keyboard.press("Home")
    assert screen.page.input_value("#position input") == "0"
    screen.put("start-image", pictures["red"])
    screen.wait_until(lambda: screen.page.input_value("#position input") == "0.5", "it is in the middle")


def test_on_a_phone_the_stage_follows_the_start_button(screen: Screen):
    screen.page.set_viewport_size({"width": 390, "height": 844})
    start, stage, panel = (box(screen, name) for name in ("start", "stage", "panel"))
    assert start["y"] < stage["y"] < panel["y"]
    assert stage["y"] < 844, "some of it is in sight"


def test_who_does_not_write_english_gets_phrases_and_nothing_moves(screen: Screen):
    before, field = box(screen, "start"), screen.page.locator("#prompt textarea")
    hint = screen.page.locator("#ichi-hint")
    field.fill("The cat")
    expect(hint).to_be_hidden()
    field.fill("猫が歩く")
    expect(hint).to_contain_text(WORDS("live.english"))
    assert box(screen, "start") == before
    screen.page.locator("#seconds-choice label").nth(3).click(trial=True)
    screen.page.keyboard.press("Escape")
    expect(hint).to_be_hidden()
    field.fill("The cat 猫が歩く。 runs.")
    hint.get_by_role("button", name=WORDS("live.phrase_in")).click()
    expect(field).to_have_value("The cat runs. The camera slowly moves in.")
    screen.page.keyboard.press("Control+Z")
    expect(field).to_have_value("The cat 猫が歩く。 runs.")
    field.fill("猫が歩く")
    hint.get_by_role("button", name=WORDS("live.phrase_pan")).click()
    expect(field).to_have_value("The camera pans left.")
    expect(hint).to_be_hidden()
    screen.settle()


PASTE = """async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [80, 60];
    const blob = await new Promise((take) => canvas.toBlob(take));
    const data = new DataTransfer();
    data.items.add(new File([blob], "pasted.png", { type: "image/png" }));
    document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


def test_a_pasted_picture_goes_to_the_first_empty_place(screen: Screen):
    for place in ("start-image", "end-image"):
        with screen.asking():
            screen.page.evaluate(PASTE)
        screen.wait_until(lambda p=place: "pasted" in screen.picture(p), place)


def test_a_pasted_picture_beside_several_start_images_becomes_the_end_image(screen: Screen, pictures):
    screen.drop(pictures["red"], pictures["green"])
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(2)
    expect(screen.page.locator("#ichi-picture")).to_be_visible()
    assert "red" in str(screen.page.locator("#ichi-picture").get_attribute("src")), "the first of them"
    expect(screen.page.locator("#ichi-crop")).to_be_visible()
    with screen.asking():
        screen.page.evaluate(PASTE)
    screen.wait_until(lambda: "pasted" in screen.picture("end-image"), "the end image")


def test_settings_that_differ_are_marked_and_reset_with_one_click(open_with: Any):
    screen: Screen = open_with(steps=16)
    screen.open_panel()
    screen.set("steps", 7)
    marked = screen.page.locator("#steps.ichi-changed")
    expect(marked).to_have_count(1)
    screen.click("reset")
    expect(marked).to_have_count(0)
    assert screen.value("steps") == "16"
    screen.click_undo()
    expect(marked).to_have_count(1)
    assert screen.value("steps") == "7"


@pytest.mark.parametrize(
    ("asked", "language"), [("zh-TW", "zh-tw"), ("ja-JP", "ja"), ("en-GB", "en"), ("fr-FR", "en")]
)
def test_the_first_visit_speaks_the_browsers_language(app: App, browser: Browser, asked, language):
    app.keep_settings(language=None)
    context = browser.new_context(locale=asked)
    screen = Screen(context.new_page(), app.url).open()
    expect(screen.page.locator("#start")).to_have_text(Translator(language)("page.start"))
    assert screen.page.input_value("#ichi-language") == language
    context.close()

"""A video comes back: all its settings, the same with another seed, its last frame as a start."""

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from diffusers_helper.media.embedded_request import load_request, write_png
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import read_last_frame, write_mp4
from tests.browser.driver import WORDS, Screen
from tests.support.app import App
from tests.support.pictures import PICTURE

URI = to_data_uri(PICTURE)

REQUEST = {
    "prompt": "A boat\nsways.",
    "negative_prompt": "text",
    "guidance_scale": 1.5,
    "guidance_rescale": 0.5,
    "seed": 2**63 - 1,
    "seconds": 2,
    "section_seconds": 0.5,
    "steps": 3,
    "teacache": True,
    "teacache_threshold": 0.15,
    "distilled_guidance_scale": 6,
    "end_frame_strength": 0.7,
    "all_padding": 1.5,
    "width": 80,
    "height": 48,
    "crf": 20,
    "loop": True,
    "save_section_stills": True,
    "end_image": URI,
    "keyframes": [{"section": 1, "image": URI, "prompt": "It turns."}],
}
FIELDS = {
    "prompt": "A boat\nsways.",
    "seed": str(2**63 - 1),
    "steps": "3",
    "teacache-threshold": "0.15",
    "all-padding": "1.5",
    "preset-name": "",
}
TICKS = {
    "random-seed": False,
    "teacache": True,
    "use-keyframes": True,
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A video with settings that the page has no fields for; its picture lies beside it."""
    video = tmp_path_factory.mktemp("recorded") / "boat.mp4"
    write_mp4(video, [PICTURE], crf=40, comment=json.dumps(REQUEST | {"start_image": URI}))
    write_png(video.with_suffix(".png"), PICTURE, json.dumps(REQUEST))
    return video


def test_a_dropped_video_of_ours_brings_all_settings_back(screen: Screen, recorded: Path):
    screen.drop(recorded)
    expect(screen.message).to_have_text(WORDS("page.restored"))
    screen.open_presets()
    assert {name: screen.value(name) for name in FIELDS} == FIELDS
    assert {name: screen.is_ticked(name) for name in TICKS} == TICKS
    assert (screen.is_ticked("loop"), screen.chosen("section-seconds")) == (True, "0.5")
    assert all(screen.picture(place) for place in ("start-image", "end-image", "section-1"))
    assert not screen.picture("section-0")
    assert screen.page.locator("#section-1 textarea").input_value() == "It turns."
    extras = screen.text("extras")
    for key in ("negative_prompt", "guidance_scale", "guidance_rescale", "width", "height"):
        assert WORDS("page.extra", name=WORDS(f"field.{key}"), value=REQUEST[key]) in extras

    assert (screen.outlook().width, screen.outlook().height) == (80, 48)
    screen.click("forget-extras")
    screen.wait_until(lambda: screen.outlook().width != 80, "the size is the page's own again")
    expect(screen.page.locator("#extras")).to_be_hidden()


@pytest.mark.slow
def test_page_and_command_make_the_same_video(screen: Screen, app: App, recorded: Path, tmp_path):
    made = app.run("--headless", recorded, "--output", tmp_path, "--name", "boat")
    assert made.returncode == 0, made.stderr
    screen.drop(recorded)
    screen.make_video()
    paths = (tmp_path / "boat.mp4", app.videos()[-1])
    assert load_request(paths[0]) == load_request(paths[1])
    assert np.array_equal(*map(read_last_frame, paths))


def test_a_silent_result_can_be_continued_restored_and_made_again(screen: Screen, pictures):
    screen.put("start-image", pictures["red"])
    screen.open_panel()
    screen.tick("sound", False)
    screen.make_video()
    assert screen.page.evaluate("ichi.chimes") == 0
    said = {"continue": "page.continued", "take-settings": "page.restored", "again": "page.again_queued"}
    for button, key in said.items():
        # a picture that was chosen takes the stage
        screen.page.locator("#ichi-strip [data-action=play]").first.click()
        screen.click(button)
        expect(screen.message).to_have_text(WORDS(key))
        assert "red.png" not in screen.picture("start-image"), "it is a picture of the video"
    screen.wait_until_running()

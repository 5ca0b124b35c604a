"""A video comes back: all its settings, the same with another seed, its last frame as a start."""

import json
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.video import read_last_frame
from tests.browser.driver import WORDS, Screen
from tests.support.app import App

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
}
FIELDS = {
    "prompt": "A boat\nsways.",
    "seed": str(2**63 - 1),
    "seconds": "2",
    "steps": "3",
    "teacache-threshold": "0.15",
    "guidance": "6",
    "end-frame-strength": "0.7",
    "all-padding": "1.5",
    "crf": "20",
    "preset-name": "",
}
TICKS = {
    "random-seed": False,
    "teacache": True,
    "use-all-padding": True,
    "keep-section-videos": False,
    "save-section-stills": True,
    "use-keyframes": True,
}


@pytest.fixture(scope="module")
def recorded(app: App, pictures: dict[str, Path], tmp_path_factory) -> Path:
    """A video made by the command, with settings that the page has no fields for."""
    folder = tmp_path_factory.mktemp("recorded")
    keyframes = [{"section": 1, "image": str(pictures["blue"]), "prompt": "It turns."}]
    images = {
        "start_image": str(pictures["red"]),
        "end_image": str(pictures["green"]),
        "keyframes": keyframes,
    }
    request = folder / "request.json"
    request.write_text(json.dumps(REQUEST | images), "utf-8")
    made = app.run("--headless", request, "--output", folder, "--name", "boat")
    assert made.returncode == 0, made.stderr
    return folder / "boat.mp4"


def downloaded(url: str) -> Image.Image:
    with urllib.request.urlopen(url) as answer:
        return Image.open(BytesIO(answer.read())).convert("RGB")


def shown_fields(screen: Screen) -> dict[str, Any]:
    screen.open_presets()
    fields: dict[str, Any] = {name: screen.value(name) for name in FIELDS}
    fields |= {name: screen.is_ticked(name) for name in TICKS}
    return fields | {"mode": screen.chosen("mode"), "section-seconds": screen.chosen("section-seconds")}


@pytest.mark.parametrize("ending", [".mp4", ".png"])
def test_a_file_of_ours_brings_all_settings_back(screen: Screen, recorded: Path, ending):
    screen.drop(recorded.with_suffix(ending))

    expect(screen.message).to_have_text(WORDS("page.restored"))
    assert shown_fields(screen) == FIELDS | TICKS | {"mode": "loop", "section-seconds": "0.5"}
    assert all(screen.picture(place) for place in ("start-image", "end-image", "section-1"))
    assert not screen.picture("section-0")
    assert screen.page.locator("#section-1 textarea").input_value() == "It turns."
    extras = screen.text("extras")
    for key in ("negative_prompt", "guidance_scale", "guidance_rescale", "width", "height"):
        assert WORDS("page.extra", name=WORDS(f"field.{key}"), value=REQUEST[key]) in extras
    announced = screen.outlook()
    request = load_request(recorded)
    assert (announced.width, announced.height) == (request.width, request.height)


def test_what_has_no_field_counts_until_it_is_left_out(screen: Screen, recorded: Path):
    screen.open_files(recorded)
    assert (screen.outlook().width, screen.outlook().height) == (80, 48)
    screen.open_panel()
    screen.click("forget-extras")
    screen.wait_until(lambda: screen.outlook().width != 80, "the size is the page's own again")
    expect(screen.page.locator("#extras")).to_be_hidden()


@pytest.mark.slow
def test_the_same_video_is_made_again_from_what_came_back(screen: Screen, app: App, recorded: Path):
    screen.drop(recorded)
    screen.make_video()
    again = app.videos()[-1]
    assert load_request(again) == load_request(recorded)
    assert np.array_equal(read_last_frame(again), read_last_frame(recorded))


def test_our_picture_as_start_image_says_it_carries_settings(screen: Screen, recorded: Path):
    screen.choose_start(recorded.with_suffix(".png"))
    expect(screen.message).to_have_text(WORDS("page.picture_carries_settings"))
    assert screen.picture("start-image")


def test_a_result_can_be_made_again_continued_and_taken_up(screen: Screen, app: App, pictures):
    screen.choose_start(pictures["red"])
    screen.set("prompt", "A cat.")
    caption = screen.make_video()
    screen.set("prompt", "Something else.")

    screen.click("again")
    expect(screen.message).to_have_text(WORDS("page.again_queued"))
    screen.wait_for_result(before=caption)
    first, second = (load_request(path) for path in app.videos()[-2:])
    assert first.seed != second.seed
    assert (first.prompt, first.steps, first.seconds) == (second.prompt, second.steps, second.seconds)

    screen.choose_end(pictures["green"])
    screen.click("continue")
    expect(screen.message).to_have_text(WORDS("page.continued"))
    start = np.asarray(downloaded(screen.picture("start-image")))
    assert np.array_equal(start, read_last_frame(app.videos()[-1]))
    assert not screen.picture("end-image")
    assert screen.value("prompt") == "Something else."

    screen.click("take-settings")
    expect(screen.message).to_have_text(WORDS("page.restored"))
    assert screen.value("prompt") == "A cat."
    screen.open_panel()
    assert screen.value("seed") == str(second.seed)

"""Filling in the form: pictures that are dropped, and prompts that are kept under names."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from playwright.sync_api import expect

from diffusers_helper.media.images import read_image
from tests.browser.driver import GONE, WORDS, Screen, pattern
from tests.support.app import App

pytestmark = pytest.mark.slow

PLACES = ("start-image", "end-image", "section-0")


@pytest.mark.parametrize("place", ["body", "#start-image button.upload-container"])
def test_dropped_pictures_become_several_start_images(screen: Screen, pictures, place):
    screen.drop(pictures["red"], pictures["green"], on=place)
    expect(screen.page.locator("#several-images .thumbnail-item")).to_have_count(2)
    texts = pattern("page.outlook_videos", count="2"), pattern("page.outlook_durations", count="2")
    assert re.search(f"({'|'.join(texts)})$", screen.outlook().text)
    with screen.asking():
        screen.page.locator("#several-images .icon-button").last.click()
    expect(screen.page.locator("#start-image")).to_be_visible()
    expect(screen.page.locator("#several-images")).to_be_hidden()


def test_one_dropped_picture_goes_where_it_is_dropped(screen: Screen, pictures):
    screen.drop(pictures["green"], on="#end-image button.upload-container")
    assert "green.png" in screen.picture("end-image")
    assert not screen.picture("start-image")
    screen.drop(pictures["red"], on="#start-image button.upload-container")
    assert "red.png" in screen.picture("start-image")
    screen.drop(pictures["blue"])
    assert "blue.png" in screen.picture("start-image")


def test_a_saved_preset_can_be_used(screen: Screen):
    screen.open_presets()
    screen.set("prompt", "The cat yawns.\nIt sleeps.")
    screen.page.locator("#preset-name input, #preset-name textarea").fill("Cat")
    screen.click("save-preset")
    expect(screen.message).to_have_text(WORDS("page.preset_saved", name="Cat"))
    screen.set("prompt", "")
    screen.reload().open_presets()
    screen.page.locator("#preset input").click()
    with screen.asking():
        screen.page.get_by_role("option", name="Cat").click()
    screen.click("apply-preset")
    assert screen.value("prompt") == "The cat yawns.\nIt sleeps."


# -- files of which a browser knows no type, and what is no file ------------------------------------------


@pytest.fixture
def with_rows(open_with) -> Screen:
    screen: Screen = open_with(use_keyframes=True)
    screen.open_panel()
    expect(screen.page.locator("#section-0")).to_be_visible()
    return screen


def expect_places(screen: Screen, name: str, count: int) -> None:
    """Wait until that picture stands in the first places, and in no other."""
    stands = lambda: [place for place in PLACES if f"/{name}." in screen.picture(place)]  # noqa: E731
    screen.wait_until(lambda: stands() == [*PLACES[:count]], f"{name} stands in {count} places")


@pytest.mark.parametrize(
    "name",
    [
        "photo",
        *(
            pytest.param(f"photo.{end}", marks=pytest.mark.slow)
            for end in ("jpg_large", "MPO", "jfif", "txt")
        ),
    ],
)
def test_a_picture_of_unknown_type_stands_where_it_was_put(with_rows: Screen, pictures, tmp_path, name):
    dropped, chosen = tmp_path / name, tmp_path / f"c{name}"
    for path, colour in ((dropped, "green"), (chosen, "blue")):
        path.write_bytes(pictures[colour].read_bytes())
    for count, place in enumerate(PLACES, 1):
        with_rows.drop(dropped, on=f"#{place}")
        expect_places(with_rows, name, count)
    for count, place in enumerate(PLACES, 1):  # also in place of another
        with_rows.put(place, chosen)
        expect_places(with_rows, f"c{name}", count)


def test_what_is_no_picture_is_refused_and_the_one_there_stays(with_rows: Screen, pictures, tmp_path):
    (notes := tmp_path / "notes").write_text("These are my notes.")
    with_rows.trouble.allow(GONE)
    for place in PLACES:
        with_rows.put(place, pictures["red"])
        with_rows.wait_until(lambda p=place: "red.png" in with_rows.picture(p), "it is there")
    for place in PLACES:
        with_rows.drop(notes, on=f"#{place}")
        expect(with_rows.message).to_have_text(WORDS("error.not_an_image", image="notes"))
        with_rows.wait_until(lambda p=place: "red.png" in with_rows.picture(p), f"it stays: {place}")


def test_several_files_a_link_and_a_folder_are_refused_in_words(with_rows: Screen, pictures):
    page = with_rows.page
    for place in PLACES[1:]:
        with_rows.drop(pictures["red"], pictures["blue"], on=f"#{place}")
        expect_new_message(with_rows, "page.one_picture_here")
    for kind, content in (("text/uri-list", "http://a.example/b.jpg"), ("text/html", "<img src='b.jpg'>")):
        for place in ("body", *(f"#{place}" for place in PLACES)):
            page.evaluate("inside.dropText", [kind, content, place])
            expect_new_message(with_rows, "page.address_dropped")
    page.evaluate("inside.dropText", ["text/html", "<b>words</b>", "#prompt textarea"])  # they go in there
    page.evaluate("DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true })")
    with_rows.drop(pictures["red"], on="#end-image")
    expect_new_message(with_rows, "page.folder_dropped")
    assert [place for place in PLACES if with_rows.picture(place)] == []


def expect_new_message(screen: Screen, key: str) -> None:
    """Wait for another message, though it may say the same as the one before."""
    message = screen.page.locator("#ichi-toast .ichi-message p:not([data-seen])")
    expect(message).to_have_text(WORDS(key))
    message.evaluate("message => message.dataset.seen = ''")


def seen(screen: Screen, place: str) -> np.ndarray:
    """The pixels that stand in a place."""
    selector = f"#{place} img"
    size, pixels = screen.page.evaluate("inside.pixels", selector)
    return np.array(pixels, np.uint8).reshape(size[1], size[0], 4)[..., :3]


@pytest.mark.parametrize(
    "place", [PLACES[0], *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES[1:])]
)
def test_a_place_shows_what_the_engine_reads(with_rows: Screen, tmp_path: Path, place: str):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    colours = np.zeros((60, 90, 3), np.uint8)
    colours[:30, :45], colours[30:, 45:] = (200, 60, 30), (20, 90, 220)
    image = Image.fromarray(colours)
    half = image.convert("RGBA")
    half.putalpha(Image.fromarray(colours[..., 2]))
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    half.save(tmp_path / "half.png")
    Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12).save(tmp_path / "deep.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (90, 60), "red")])
    image.save(tmp_path / "scan.tiff")
    for path in sorted(tmp_path.iterdir()):
        with_rows.put(place, path)
        with_rows.wait_until(lambda n=path.name: n in with_rows.picture(place), f"{path.name} {place}")
        with_rows.wait_until(
            lambda n=path: np.array_equal(seen(with_rows, place), read_image(str(n))), path.name
        )


def test_what_is_left_of_a_picture_that_is_cut_can_be_taken(with_rows: Screen, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "cut.jpg", quality=80)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    for place in PLACES:
        with_rows.drop(path, on=f"#{place}")
        expect(with_rows.message).to_contain_text("cut.jpg")
        offer = with_rows.page.locator("#ichi-toast [data-ichi-offer]")
        expect(offer).to_have_text(WORDS("page.take_cut"))
        assert not with_rows.picture(place)
        with_rows.page.wait_for_timeout(700)  # a row is drawn anew behind the message; nobody is faster
        offer.click()
        with_rows.wait_until(lambda p=place: "cut.jpg" in with_rows.picture(p), place)
        expect(with_rows.message).to_have_count(0)
    assert np.array_equal(seen(with_rows, "end-image"), read_image(str(path), partial=True))


PUT_PICTURE = """async () => {
    const canvas = document.createElement('canvas');
    canvas.width = 96; canvas.height = 64;
    canvas.getContext('2d').fillRect(0, 0, 9, 9);
    const blob = await new Promise((go) => canvas.toBlob(go));
    await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]);
}"""
PUT_TEXT = "navigator.clipboard.writeText('no picture')"


@pytest.mark.parametrize("place", ["start-image", "section-0"])
def test_a_picture_is_pasted_by_the_button_and_what_is_none_is_told(with_rows: Screen, place):
    page, context = with_rows.page, with_rows.page.context
    button = page.locator(f"#{place} .source-selection button").last
    button.click()
    expect(with_rows.message).to_have_text(WORDS("page.nothing_pasted"))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(PUT_TEXT)
    with with_rows.asking():
        button.click()
    expect(with_rows.message).to_have_text(WORDS("page.nothing_pasted"))
    assert "Clipboard" not in page.locator(f"#{place}").inner_text()
    page.evaluate(PUT_PICTURE)
    with with_rows.asking():
        button.click()
    with_rows.wait_until(lambda: "clipboard.png" in with_rows.picture(place), "it is there")


# -- the output folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["Enter", "Tab"])
def test_an_output_folder_is_kept_when_somebody_has_finished_typing(app, screen: Screen, tmp_path, key):
    screen.open_panel()
    kept = lambda: app.kept_settings().get("output_folder", "outputs")  # noqa: E731
    field = screen.page.locator("#output-folder :is(input, textarea)")
    field.press("ControlOrMeta+a")
    field.press_sequentially(str(tmp_path / "video"), delay=5)
    screen.settle()
    assert kept() == "outputs"
    expect(screen.page.locator("#outlook .ichi-error")).to_have_count(0)
    with screen.asking():
        field.press(key)
    assert kept() == str(tmp_path / "video")
    with screen.asking():
        field.fill("../video")
        field.press(key)
    expect(screen.message).to_contain_text("../video")
    expect(screen.page.locator("#outlook")).to_contain_text("../video")
    assert kept() == str(tmp_path / "video")
    screen.reload().open_panel()
    assert screen.value("output-folder") == kept()


def test_a_folder_is_chosen_in_the_systems_dialog(tmp_path, open_tab, refusal):
    chosen, dialog = tmp_path / "猫の動画", tmp_path / "bin" / "zenity"
    chosen.mkdir()
    dialog.parent.mkdir()
    dialog.write_text(f"#!/bin/sh\necho '{chosen}'\n", "utf-8")
    dialog.chmod(0o755)
    path = f"{dialog.parent}{os.pathsep}{os.environ['PATH']}"
    app = App(tmp_path / "app", environment=refusal | {"PATH": path, "DISPLAY": ":0"})
    app.keep_settings()
    app.start()
    try:
        screen = open_tab(app)
        screen.open_panel()
        screen.click("browse")
        screen.wait_until(lambda: screen.value("output-folder") == str(chosen), "it is in its field")
        assert app.kept_settings()["output_folder"] == str(chosen)
    finally:
        app.stop()

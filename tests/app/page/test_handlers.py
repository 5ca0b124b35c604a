"""What the page does when something on it is used: a running app, without a browser."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media.embedded_request import load_request, write_png
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import read_last_frame, write_mp4
from tests.support.app import SMALL, App, wait_until
from tests.support.page_client import ENGLISH_WITHOUT_SCREEN, PageClient
from tests.support.page_state import state, text
from webui.eichi_utils.form import DEFAULTS
from webui.eichi_utils.text.translations import LANGUAGES, Translator

WORDS = Translator("en")
PICTURE = np.full((64, 96, 3), (200, 30, 60), np.uint8)
REQUEST: dict[str, Any] = {
    "start_image": to_data_uri(PICTURE),
    "prompt": "A cat yawns.",
    "seed": 2**53 + 1,
    "seconds": 2.0,
    "steps": 25,
    "resolution": 64,
    "crf": 30,
    "loop": True,
    "negative_prompt": "blurry",
}
FIELDS_SHOWN = {
    "prompt": "A cat yawns.",
    "seconds": 2.0,
    "steps": 25,
    "resolution": 64,
    "crf": 30,
    "mode": "loop",
    "random-seed": False,
    "seed": str(2**53 + 1),
}
"""What the page shows of that request."""
SMALLEST: dict[str, Any] = SMALL | {"steps": 1, "section_seconds": 0.5}
NOBODYS = "0123456789abcdef"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    app = App(tmp_path_factory.mktemp("app"), environment=ENGLISH_WITHOUT_SCREEN)
    app.keep_settings()
    app.start()
    yield app
    app.stop()


@pytest.fixture
def page(app: App) -> Iterator[PageClient]:
    """A page of its own with small settings; whatever it has queued is removed at last."""
    app.keep_settings(**SMALLEST)
    with PageClient(app.url) as page:
        yield page.open()
        for job in jobs(app):
            for action in ("stop", "remove"):
                page.http.post(f"ichi/jobs/{job['id']}/{action}", headers={"X-Endframe-Ichi": "1"})
        wait_until(lambda: state(app)["job"] is None, "all jobs have ended")


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(PICTURE).save(path)
    return path


def jobs(app: App) -> list[dict[str, Any]]:
    """All jobs, the newest that waits last."""
    shown = state(app)
    return shown["queue"] or ([shown["job"]] if shown["job"] else [])


def made(app: App, page: PageClient) -> Path:
    """Press Start, and wait for the video."""
    before = set(app.videos())
    assert page.click("start") == ""
    wait_until(lambda: set(app.videos()) - before, "the video is made")
    wait_until(lambda: state(app)["job"] is None, "the job has ended")
    (video,) = set(app.videos()) - before
    return video


def our_video(folder: Path, **values: Any) -> Path:
    path = folder / "ours.mp4"
    write_mp4(path, [PICTURE] * 2, crf=40, comment=json.dumps(REQUEST | values))
    return path


# -- opening and filling in --------------------------------------------------------------------------


def test_a_page_opens_as_the_last_one_was_left(app, page):
    page.set(prompt="A dog runs.", steps=30, mode="loop", use_keyframes=True, teacache=False)
    with PageClient(app.url) as other:
        shown = other.open().shown
        assert (shown["prompt"], shown["steps"], shown["mode"]) == ("A dog runs.", 30, "loop")
        assert other.properties["copy-keyframes"]["visible"]
        assert not other.properties["teacache-threshold"]["visible"]


def test_a_page_opens_with_defaults_where_nothing_was_kept(app):
    app.keep_settings(**DEFAULTS)
    with PageClient(app.url) as page:
        shown = page.open().shown
        for name in ("steps", "seconds", "mode", "crf", "prompt", "seed", "teacache"):
            assert shown[name] == DEFAULTS[name], name


def test_what_will_come_out_stands_there_before_start(page, cat):
    page.set(prompt="x")
    assert text(page.shown["outlook"]) == "21 frames, 0.70 s, sections: 1"
    page.choose("start-image", page.upload(cat))
    page.set(seconds=2)
    assert text(page.shown["outlook"]).startswith("61 frames, 2.03 s, 96 x 64, sections: 3")


def test_an_emptied_number_is_named_where_the_outlook_stands_and_not_remembered(app, page):
    page.set(steps=None)
    assert text(page.shown["outlook"]).startswith(f'"{WORDS("field.steps")}" must be')
    assert app.kept_settings()["steps"] == SMALLEST["steps"]


def test_nonsense_from_a_browser_is_a_sentence(page):
    for value in ("x", [], {"a": 1}, True, -1, 10**30):
        page.set(crf=value)
        assert text(page.shown["outlook"]).startswith(f'"{WORDS("field.crf")}" must be')


def test_switches_show_what_belongs_to_them(page):
    page.set(use_all_padding=True, random_seed=False)
    assert page.properties["all-padding"]["visible"]
    assert page.properties["seed"]["interactive"]
    page.set(use_all_padding=False, random_seed=True)
    assert not page.properties["all-padding"]["visible"]
    assert not page.properties["seed"]["interactive"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_whole_page_changes_its_language_and_no_value(page, app, language):
    before = {name: page.shown[name] for name in ("mode", "section-seconds", "steps", "prompt")}
    page.set(language=language)
    words = Translator(language)
    assert page.shown["start"] == words("page.start")
    assert page.properties["steps"]["label"] == words("page.steps")
    assert page.properties["prompt"]["placeholder"] == words("page.prompt_hint")
    modes = [(words("page.mode_normal"), "normal"), (words("page.mode_loop"), "loop")]
    assert [tuple(choice) for choice in page.properties["mode"]["choices"]] == modes
    assert {name: page.shown[name] for name in before} == before
    assert app.kept_settings()["language"] == language
    assert text(page.click("start")) == words("error.choose_start_image")


# -- pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["start-image", "end-image"])
def test_what_is_no_picture_is_taken_out_again_and_said(page, tmp_path, place):
    file = tmp_path / "cat.png"
    for content in (b"<html></html>", b'{"a": 1}', b"text", b"\x89PNG\r\n\x1a\n", b""):
        file.write_bytes(content)
        assert "ichi-error" in page.choose(place, page.upload(file))
        assert page.shown[place] is None


def test_a_picture_that_browsers_do_not_show_is_shown_as_png(page, tmp_path):
    file = tmp_path / "scan.tiff"
    Image.fromarray(PICTURE).save(file)
    assert page.choose("start-image", page.upload(file)) == ""
    shown = page.shown["start-image"]
    content = page.http.get(f"gradio_api/file={shown['path']}")
    assert content.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content.content))), PICTURE)


def test_a_picture_that_carries_settings_says_so_and_changes_nothing(page, tmp_path):
    file = tmp_path / "ours.png"
    write_png(file, PICTURE, REQUEST)
    said = page.choose("start-image", page.upload(file))
    assert text(said) == WORDS("page.picture_carries_settings")
    assert page.shown["steps"] == SMALLEST["steps"]


def test_several_pictures_take_the_place_of_one_and_make_a_video_each(app, page, tmp_path, cat):
    other = shutil.copy(cat, tmp_path / "other.png")
    said = page.choose("inbox", [page.upload(cat), page.upload(Path(other))])
    assert text(said) == WORDS("page.several_chosen", count=2)
    assert not page.properties["start-image"]["visible"]
    assert page.properties["several-images"]["visible"]
    page.set(prompt="x")
    assert text(page.shown["outlook"]).endswith(WORDS("page.outlook_videos", count=2))
    page.set(steps=100, seconds=60)
    page.click("start")
    assert [job["state"] for job in jobs(app) if job["state"] in ("running", "waiting")] in (
        ["running", "waiting"],
        ["waiting", "waiting"],
    )


def test_an_emptied_collection_gives_its_place_back(page, cat):
    page.choose("inbox", [page.upload(cat), page.upload(cat)])
    page.set(several_images=[])
    assert page.properties["start-image"]["visible"]
    assert not page.properties["several-images"]["visible"]


def test_a_single_picture_from_anywhere_becomes_the_start_image(page, cat):
    assert page.choose("inbox", [page.upload(cat)]) == ""
    assert page.shown["start-image"]["path"].endswith("cat.png")


# -- files that come back ----------------------------------------------------------------------------


def test_a_video_of_ours_brings_all_its_settings_back(page, tmp_path):
    said = page.choose("inbox", [page.upload(our_video(tmp_path))])
    assert text(said) == WORDS("page.restored")
    assert {name: page.shown[name] for name in FIELDS_SHOWN} == FIELDS_SHOWN
    picture = page.http.get(f"gradio_api/file={page.shown['start-image']['path']}")
    assert picture.status_code == 200
    assert "negative prompt = blurry" in text(page.shown["extras"])
    assert page.properties["forget-extras"]["visible"]


def test_what_was_brought_back_is_made_to_the_last_digit_of_its_seed(app, page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, seconds=0.5, section_seconds=0.5, steps=1))])
    again = load_request(made(app, page))
    assert (again.negative_prompt, again.seed, again.loop) == ("blurry", 2**53 + 1, True)
    assert page.shown["seed"] == str(2**53 + 1)


def test_a_video_that_begins_with_a_sections_picture_is_announced_with_its_size(page, tmp_path):
    rows = [{"section": 0, "image": REQUEST["start_image"]}]
    page.choose("inbox", [page.upload(our_video(tmp_path, start_image=None, keyframes=rows))])
    page.set(prompt="x")
    assert page.shown["use-keyframes"] is True
    assert text(page.shown["outlook"]).startswith("73 frames, 2.43 s, 96 x 64, sections: 2")


def test_what_no_field_shows_can_be_left_out(page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path))])
    page.click("forget-extras")
    assert page.shown["extras"] == ""
    assert not page.properties["forget-extras"]["visible"]


def test_a_value_beyond_a_sliders_end_is_shown_as_it_is(page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, resolution=1536, all_padding=9.5))])
    assert (page.shown["resolution"], page.properties["resolution"]["maximum"]) == (1536, 1536)
    assert (page.shown["all-padding"], page.properties["all-padding"]["maximum"]) == (9.5, 9.5)


def test_a_foreign_video_is_refused_and_changes_nothing(page, tmp_path):
    file = tmp_path / "holiday.mp4"
    write_mp4(file, [PICTURE] * 2, crf=40, comment="")
    before = dict(page.shown)
    said = text(page.choose("inbox", [page.upload(file)]))
    assert said == WORDS("error.not_made_by_us", path="holiday.mp4")
    assert {**page.shown, "message": before["message"], "inbox": before["inbox"]} == before


def test_a_video_that_names_a_file_of_this_computer_is_refused(page, tmp_path, cat):
    file = our_video(tmp_path, start_image=str(cat))
    assert text(page.choose("inbox", [page.upload(file)])) == WORDS("error.not_made_by_us", path="ours.mp4")


def test_a_video_among_pictures_is_refused(page, tmp_path, cat):
    files = [page.upload(cat), page.upload(our_video(tmp_path))]
    assert text(page.choose("inbox", files)) == WORDS("error.video_among_pictures")


# -- jobs --------------------------------------------------------------------------------------------


def test_start_makes_what_was_announced_and_shows_the_seed(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(prompt="A cat.", seconds=1)
    announced = text(page.shown["outlook"])
    video = made(app, page)
    request = load_request(video)
    assert page.shown["seed"] == str(request.seed)
    (result,) = [result for result in state(app)["results"] if result["file"] == video.name]
    frames, size = re.findall(r"(\d+) frames, .* s, (\d+ x \d+)", announced)[0]
    assert f"{frames} frames" in result["caption"]
    assert size in result["caption"]


def test_start_without_a_picture_is_a_sentence_and_queues_nothing(app, page):
    before = len(jobs(app))
    assert text(page.click("start")) == WORDS("error.choose_start_image")
    assert len(jobs(app)) == before


def test_an_output_folder_elsewhere_is_refused(app, page, cat):
    page.choose("start-image", page.upload(cat))
    before = len(jobs(app))
    for name in ("../outside", "/tmp", "C:\\x", "settings", "a/../..", "", "con", "a\0b"):
        page.set(output_folder=name)
        promised = text(page.shown["outlook"])
        said = page.click("start")
        assert text(said).startswith(promised), "before Start the page said what Start then says"
        assert "ichi-error" in said
        assert "went wrong that this app does not know" not in text(said)
    assert len(jobs(app)) == before


def test_a_second_job_says_that_it_waits(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    wait_until(lambda: state(app)["job"], "the first job runs")
    assert text(page.click("start")) == WORDS("page.queued", count=1)


def test_stop_stops_the_job_that_the_page_shows(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    job = wait_until(lambda: state(app)["job"], "the job runs")
    page.click("stop", job=NOBODYS)
    assert not state(app)["job"]["stopping"]
    page.click("stop", job=job["id"])
    wait_until(lambda: state(app)["job"] is None, "the job has stopped")
    assert state(app)["ended"]["text"].endswith("is stopped.")


def test_a_result_can_be_made_again_continued_and_taken_over(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(prompt="A cat.")
    video = made(app, page)
    job = state(app)["ended"]["id"]

    page.set(prompt="Something else.", steps=7)
    assert text(page.click("take-settings", job=job)) == WORDS("page.restored")
    assert (page.shown["prompt"], page.shown["steps"]) == ("A cat.", 1)
    assert (page.shown["random-seed"], page.shown["seed"]) == (False, str(load_request(video).seed))

    assert text(page.click("continue", job=job)) == WORDS("page.continued")
    last = page.http.get(f"gradio_api/file={page.shown['start-image']['path']}").content
    (shown := video.with_name("last.png")).write_bytes(last)
    assert np.array_equal(np.asarray(Image.open(shown).convert("RGB")), read_last_frame(video))

    assert text(page.click("again", job=job)) == WORDS("page.again_queued")
    wait_until(lambda: state(app)["ended"]["id"] != job, "it is made again")
    again = load_request(video.with_name(state(app)["results"][0]["file"]))
    first = load_request(video)
    assert (again.prompt, again.seconds) == (first.prompt, first.seconds)
    assert again.seed != first.seed


@pytest.mark.parametrize("button", ["again", "continue", "take-settings"])
def test_a_button_of_a_result_that_is_gone_is_a_sentence(page, button):
    for job in ("", NOBODYS, "../x"):
        assert text(page.click(button, job=job)) == WORDS("error.no_result")


def test_without_a_screen_the_page_tells_where_the_folder_is(app, page):
    assert text(page.click("open-folder")) == WORDS("page.folder_is", path=app.outputs)


# -- pictures of this computer that nobody uploaded --------------------------------------------------


@pytest.mark.parametrize(
    ("place", "wrapped"),
    [
        ("start-image", lambda file: file),
        ("end-image", lambda file: file),
        ("several-images", lambda file: [{"image": file, "caption": None}]),
    ],
)
def test_a_page_that_names_a_file_of_this_computer_by_hand_gets_nothing(
    app: App, page: PageClient, cat: Path, place: str, wrapped: Callable[[Any], Any]
):
    if place == "end-image":
        page.choose("start-image", page.upload(cat))
    page.shown[place] = wrapped({"path": str(cat)})
    before = len(jobs(app))
    said = text(page.click("start"))
    assert said == WORDS("error.image_missing", image=str(cat))
    assert len(jobs(app)) == before


def test_an_upload_that_names_a_file_of_this_computer_by_hand_shows_nothing(page, cat):
    said = text(page.choose("start-image", {"path": str(cat)}))
    assert said == WORDS("error.image_missing", image=str(cat))
    assert page.shown["start-image"] is None


def test_a_file_that_was_uploaded_is_taken_also_by_its_path_alone(page, cat):
    path = page.upload(cat)["path"]
    assert page.choose("start-image", {"path": path}) == ""


# -- presets -----------------------------------------------------------------------------------------


def test_a_prompt_can_be_kept_taken_and_deleted(page):
    page.set(prompt="A cat jumps.")
    page.shown["preset-name"] = " jump "
    assert text(page.click("save-preset")) == WORDS("page.preset_saved", name="jump")
    assert page.shown["preset"] == "jump"
    assert "jump" in json.dumps(page.properties["preset"]["choices"])
    page.set(prompt="Something else.")
    page.click("apply-preset")
    assert page.shown["prompt"] == "A cat jumps."
    assert text(page.click("save-preset")) == WORDS("page.preset_replaced", name="jump")
    assert text(page.click("delete-preset")) == WORDS("page.preset_deleted", name="jump")
    assert (page.shown["preset"], page.shown["preset-name"]) == (None, "")


def test_a_preset_can_be_marked_for_the_start(app, page):
    page.set(prompt="Every day.")
    page.shown["preset-name"] = "daily"
    page.click("save-preset")
    page.shown["startup-preset"] = True
    page.send("startup-preset", "input")
    assert text(page.message) == WORDS("page.preset_marked", name="daily")
    with PageClient(app.url) as other:
        shown = other.open().shown
        assert (shown["preset"], shown["startup-preset"]) == ("daily", True)
    page.click("delete-preset")
    with PageClient(app.url) as other:
        assert other.open().shown["preset"] is None


def test_buttons_without_a_preset_are_sentences(page):
    page.shown["preset"] = None
    for button in ("apply-preset", "delete-preset"):
        assert text(page.click(button)) == WORDS("error.choose_preset")
    page.shown["preset"] = "one that somebody has deleted"
    assert text(page.click("apply-preset")).startswith("There is no preset ")


def test_a_preset_without_name_or_prompt_is_refused(page):
    for name, prompt in (("", "A cat."), ("a\nb", "A cat."), ("x" * 101, "A cat."), ("a", " ")):
        page.shown |= {"preset-name": name, "prompt": prompt}
        assert "ichi-error" in page.click("save-preset")


def test_a_name_with_markup_stays_a_name(page):
    page.set(prompt="A cat.")
    page.shown["preset-name"] = "<img src=x onerror=alert(1)>"
    said = page.click("save-preset")
    assert "<img" not in said
    assert "<img src=x onerror=alert(1)>" in text(said)
    page.click("delete-preset")

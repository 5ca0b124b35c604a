"""The page's handlers in a running app, without a browser."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusers_helper.media.embedded_request import load_request, write_png
from diffusers_helper.media.images import to_data_uri
from diffusers_helper.media.video import read_last_frame, write_mp4
from tests.support.app import SMALL, App, wait_until
from tests.support.page_client import PageClient
from tests.support.page_state import state, text
from tests.support.pictures import PICTURE
from webui.eichi_utils.form import DEFAULTS
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")
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
SMALLEST: dict[str, Any] = SMALL | {"steps": 1, "section_seconds": 0.5}
NOBODYS = "0123456789abcdef"


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


def our_video(folder: Path, name: str = "ours.mp4", **values: Any) -> Path:
    path = folder / name
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
    app.keep_settings(**DEFAULTS)
    with PageClient(app.url) as other:
        shown = other.open().shown
        names = ("steps", "seconds", "mode", "crf", "prompt", "seed", "teacache")
        assert {name: shown[name] for name in names} == {name: DEFAULTS[name] for name in names}


def test_a_wrong_value_is_named_and_not_remembered(app, page):
    for value in (None, {"a": 1}, 10**30):
        page.set(crf=value)
        assert text(page.shown["outlook"]).startswith(f'"{WORDS("field.crf")}" must be')
    page.set(steps=None, prompt=None)
    assert app.kept_settings()["steps"] == SMALLEST["steps"]
    assert app.kept_settings()["prompt"] == "", "an emptied text is one"


def test_switches_show_what_belongs_to_them(page):
    for is_on in (True, False):
        page.set(use_all_padding=is_on, random_seed=not is_on)
        assert page.properties["all-padding"]["visible"] is is_on
        assert page.properties["seed"]["interactive"] is is_on


# -- pictures ----------------------------------------------------------------------------------------


def test_an_unusable_picture_is_taken_out_and_an_undisplayable_one_shown_as_png(page, tmp_path):
    (broken := tmp_path / "cat.png").write_bytes(b"<html></html>")
    Image.fromarray(PICTURE).save(scan := tmp_path / "scan.tiff")
    for widget in ("start-image", "end-image"):
        assert "ichi-error" in page.choose(widget, page.upload(broken))
        assert page.shown[widget] is None
    assert page.choose("start-image", page.upload(scan)) == ""
    content = page.http.get(f"gradio_api/file={page.shown['start-image']['path']}")
    assert content.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content.content))), PICTURE)


def test_a_picture_with_settings_is_reported_and_changes_nothing(page, tmp_path):
    file = tmp_path / "ours.png"
    write_png(file, PICTURE, REQUEST)
    message = page.choose("start-image", page.upload(file))
    assert text(message) == WORDS("page.picture_carries_settings")
    assert page.shown["steps"] == SMALLEST["steps"]
    assert text(page.choose("inbox", [page.upload(file)])) == WORDS("page.restored")


def test_several_start_images_make_a_video_each(app, page, tmp_path, cat):
    other = shutil.copy(cat, tmp_path / "other.png")
    message = page.choose("inbox", [page.upload(cat), page.upload(Path(other))])
    assert text(message) == WORDS("page.several_chosen", count=2)
    images = [page.properties[name] for name in ("start-image", "several-images")]
    assert [image["visible"] for image in images] == [False, True]
    page.set(prompt="x")
    assert text(page.shown["outlook"]).endswith(WORDS("page.outlook_videos", count=2))
    page.set(steps=100, seconds=60)
    page.click("start")
    states = [job["state"] for job in jobs(app) if job["state"] in ("running", "waiting")]
    assert states in (["running", "waiting"], ["waiting", "waiting"])
    page.set(several_images=[])
    assert [image["visible"] for image in images] == [True, False]
    assert page.choose("inbox", [page.upload(cat)]) == ""
    assert page.shown["start-image"]["path"].endswith("cat.png")


# -- files that come back ----------------------------------------------------------------------------


def test_sliders_reach_as_far_as_a_restored_value(page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, resolution=1536, all_padding=9.5))])
    for name, value in (("resolution", 1536), ("all-padding", 9.5)):
        assert page.shown[name] == page.properties[name]["maximum"] == value


def test_a_restored_seed_is_used_to_its_last_digit(app, page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, seconds=0.5, section_seconds=0.5, steps=1))])
    again = load_request(made(app, page))
    assert (again.negative_prompt, again.seed, again.loop) == ("blurry", 2**53 + 1, True)
    assert page.shown["seed"] == str(2**53 + 1)


def test_files_of_others_are_refused_and_change_nothing(app, page, tmp_path, cat):
    write_mp4(foreign := tmp_path / "holiday.mp4", [PICTURE] * 2, crf=40, comment="")
    naming = our_video(tmp_path, start_image=str(cat))
    program = our_video(tmp_path, "program.mp4", end_image="data:image/exe;base64,TVo=")
    before, uploads = dict(page.shown), app.home / "temp" / "uploads"
    kept = {*uploads.rglob("*.*")}
    for files, code, values in (
        ([foreign], "not_made_by_us", {"path": "holiday.mp4"}),
        ([naming], "not_made_by_us", {"path": "ours.mp4"}),
        ([program], "not_an_image", {"image": "data:image/exe"}),
        ([cat, naming], "video_among_pictures", {}),
    ):
        message = text(page.choose("inbox", [page.upload(file) for file in files]))
        assert message == WORDS(f"error.{code}", **values)
        assert {**page.shown, "message": before["message"], "inbox": before["inbox"]} == before
    assert {*uploads.rglob("*.*")} == kept | {Path(page.shown["inbox"][0]["path"])}


# -- jobs --------------------------------------------------------------------------------------------


def test_an_output_folder_elsewhere_is_refused(app, page, cat):
    page.choose("start-image", page.upload(cat))
    before = len(jobs(app))
    page.set(output_folder="../outside")
    promised = text(page.shown["outlook"])
    message = page.click("start")
    assert text(message) == promised, "the estimate shows the error before Start"
    assert "ichi-error" in message
    assert len(jobs(app)) == before


def test_a_second_job_waits_and_stop_stops_the_shown_one(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    job = wait_until(lambda: state(app)["job"], "the job runs")
    assert text(page.click("start")) == WORDS("page.queued", count=1)
    page.click("stop", job=NOBODYS)
    assert not state(app)["job"]["stopping"]
    page.click("stop", job=job["id"])
    wait_until(lambda: state(app)["ended"] and state(app)["ended"]["id"] == job["id"], "the job has stopped")
    assert state(app)["ended"]["text"].endswith("is stopped.")


def test_a_result_can_be_repeated_continued_and_restored(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(prompt="A cat.")
    estimated = text(page.shown["outlook"])
    video = made(app, page)
    job = state(app)["ended"]["id"]
    assert page.shown["seed"] == str(load_request(video).seed)
    (result,) = [result for result in state(app)["results"] if result["file"] == video.name]
    frames, size = re.findall(r"(\d+) frames, .* s, (\d+ x \d+)", estimated)[0]
    assert f"{frames} frames" in result["caption"]
    assert size in result["caption"]

    page.set(prompt="Something else.", steps=7)
    assert text(page.click("take-settings", job=job)) == WORDS("page.restored")
    assert (page.shown["prompt"], page.shown["steps"]) == ("A cat.", 1)
    assert (page.shown["random-seed"], page.shown["seed"]) == (False, str(load_request(video).seed))

    assert page.choose("end-image", page.upload(cat)) == ""
    assert text(page.click("continue", job=job)) == WORDS("page.continued")
    assert page.shown["end-image"] is None
    last = page.http.get(f"gradio_api/file={page.shown['start-image']['path']}").content
    (shown := video.with_name("last.png")).write_bytes(last)
    assert np.array_equal(np.asarray(Image.open(shown).convert("RGB")), read_last_frame(video))

    assert text(page.click("again", job=job)) == WORDS("page.again_queued")
    wait_until(lambda: state(app)["ended"]["id"] != job, "it is made again")
    again = load_request(video.with_name(state(app)["results"][0]["file"]))
    first = load_request(video)
    assert (again.prompt, again.seconds) == (first.prompt, first.seconds)
    assert again.seed != first.seed


def test_a_button_of_a_missing_result_is_refused(page):
    for button in ("again", "continue", "take-settings"):
        for job in ("", NOBODYS):
            assert text(page.click(button, job=job)) == WORDS("error.no_result")


def test_without_a_screen_the_page_names_the_folder(app, page):
    assert text(page.click("open-folder")) == WORDS("page.folder_is", path=app.outputs)


def test_a_path_that_was_never_uploaded_is_refused(app, page, cat):
    page.shown["several-images"] = [{"image": {"path": str(cat)}, "caption": None}]
    before = len(jobs(app))
    assert text(page.click("start")) == WORDS("error.image_missing", image=str(cat))
    assert len(jobs(app)) == before
    page.shown["several-images"] = None
    assert text(page.choose("start-image", {"path": str(cat)})) == WORDS(
        "error.image_missing", image=str(cat)
    )
    assert page.shown["start-image"] is None
    assert page.choose("start-image", {"path": page.upload(cat)["path"]}) == "", "an upload needs no more"


# -- presets -----------------------------------------------------------------------------------------


def test_a_preset_can_be_saved_applied_marked_and_deleted(app, page):
    page.set(prompt="A cat jumps.")
    page.shown["preset-name"] = " jump "
    assert text(page.click("save-preset")) == WORDS("page.preset_saved", name="jump")
    assert page.shown["preset"] == "jump"
    assert "jump" in json.dumps(page.properties["preset"]["choices"])
    page.set(prompt="Something else.")
    page.click("apply-preset")
    assert page.shown["prompt"] == "A cat jumps."
    page.shown["startup-preset"] = True
    page.send("startup-preset", "input")
    assert text(page.message) == WORDS("page.preset_marked", name="jump")
    with PageClient(app.url) as other:
        shown = other.open().shown
        assert (shown["preset"], shown["startup-preset"]) == ("jump", True)
    assert text(page.click("save-preset")) == WORDS("page.preset_replaced", name="jump")
    assert text(page.click("delete-preset")) == WORDS("page.preset_deleted", name="jump")
    assert (page.shown["preset"], page.shown["preset-name"]) == (None, "")
    with PageClient(app.url) as other:
        assert other.open().shown["preset"] is None


def test_buttons_without_a_preset_are_refused(page):
    page.shown["preset"] = None
    for button in ("apply-preset", "delete-preset"):
        assert text(page.click(button)) == WORDS("error.choose_preset")

"""The page's handlers in a running app, without a browser."""

import html
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
from diffusers_helper.media.images import read_image, to_data_uri
from diffusers_helper.media.video import read_last_frame, write_mp4
from diffusers_helper.public import find_unread
from tests.support.app import MODELS, SMALL, App, wait_until
from tests.support.page_client import PageClient
from tests.support.page_state import state, text
from tests.support.pictures import PICTURE
from webui.eichi_utils.form import DEFAULTS
from webui.eichi_utils.page.unread import last_words
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.files import VIEW

WORDS = Translator("en")
REQUEST: dict[str, Any] = {
    "start_image": to_data_uri(PICTURE),
    "prompt": "A cat yawns.",
    "seed": 2**53 + 1,
    "seconds": 2.0,
    "section_seconds": 1,
    "distilled_guidance_scale": 10,
    "steps": 25,
    "resolution": 64,
    "crf": 30,
    "loop": True,
    "negative_prompt": "blurry",
}
SMALLEST: dict[str, Any] = SMALL | {"steps": 1, "section_seconds": 0.5}
TRUE_LENGTHS = {1: "1.23", 2: "2.43", 4: "3.63", 6: "6.03", 8: "8.43", 16: "15.63"}
"""The seconds that videos have, as upstream computes them, by those that are asked for."""
NOBODYS = "0123456789abcdef"
FIELD_IDS = {name.replace("_", "-") for name in DEFAULTS} | {"guidance"}


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
    listed: list[dict[str, Any]] = state(app)["queue"]
    return listed


def made(app: App, page: PageClient) -> Path:
    """Press Start, and wait for the video."""
    before = set(app.videos())
    assert page.click("start") == ""
    wait_until(lambda: set(app.videos()) - before, "the video is made")
    wait_until(lambda: state(app)["job"] is None, "the job has ended")
    (video,) = set(app.videos()) - before
    return video


def two_waiting(app: App, page: PageClient, cat: Path) -> list[str]:
    """Start a long job, and return the ids of two that wait behind it: "One." and "Two."."""
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    wait_until(lambda: state(app)["job"], "the job runs")
    for prompt in ("One.", "Two."):
        page.set(prompt=prompt)
        page.click("start")
    return [job["id"] for job in jobs(app) if job["state"] == "waiting"]


def undo(page: PageClient, message: str) -> None:
    """Press the undo of a message, as the page's script does."""
    page.shown["refusal"] = html.unescape(re.findall(r'data-ichi-undo="([^"]+)"', message)[0])
    page.send("refuse", "click")


def our_video(folder: Path, name: str = "ours.mp4", **values: Any) -> Path:
    path = folder / name
    write_mp4(path, [PICTURE] * 2, crf=40, comment=json.dumps(REQUEST | values))
    return path


# -- opening and filling in --------------------------------------------------------------------------


def test_a_page_opens_as_the_last_one_was_left(app, page):
    page.set(prompt="A dog runs.", steps=30, loop=True, use_keyframes=True, teacache=False)
    with PageClient(app.url) as other:
        shown = other.open().shown
        assert (shown["prompt"], shown["steps"], shown["loop"]) == ("A dog runs.", 30, True)
        assert other.properties["copy-keyframes"]["visible"]
        assert not other.properties["teacache-threshold"]["visible"]
    app.keep_settings(**DEFAULTS)
    with PageClient(app.url) as other:
        shown = other.open().shown
        names = ("steps", "seconds", "loop", "crf", "prompt", "seed", "teacache")
        assert {name: shown[name] for name in names} == {name: DEFAULTS[name] for name in names}


def test_a_wrong_value_is_named_and_not_remembered(app, page):
    for value in ({"a": 1}, 10**30):
        page.set(crf=value)
        assert text(page.shown["outlook"]).startswith(f'"{WORDS("field.crf")}" must be')
    page.set(crf=None)
    assert text(page.shown["outlook"]) == WORDS("error.number_missing", field=WORDS("field.crf"))
    page.set(prompt="A cat.")
    page.set(steps=None, prompt=None)
    assert app.kept_settings()["steps"] == SMALLEST["steps"]
    assert app.kept_settings()["prompt"] == "", "an emptied text is one"


def test_a_length_is_kept_as_it_was_typed_where_the_form_takes_it(app, page):
    for typed, kept in ((3.3, 3.3), (0.1, 0.1), (0, 0.1), (-1, 0.1), (None, 0.1), (121, 0.1), (120, 120)):
        page.set(seconds=typed)
        assert app.kept_settings()["seconds"] == kept, typed
    page.set(seconds=0.1)
    with PageClient(app.url) as other:
        assert other.open().shown["seconds"] == 0.1


def test_switches_show_what_belongs_to_them(page):
    for is_on in (True, False):
        page.set(teacache=is_on, random_seed=not is_on)
        assert page.properties["teacache-threshold"]["visible"] is is_on
        assert page.properties["seed"]["interactive"] is is_on


def test_the_number_shows_for_other_values_than_those_in_words(app, page):
    for code, value in (("small", 26), ("other", 26), ("best", 10)):
        page.shown["crf-choice"] = code
        page.send("crf-choice", "input")
        assert (page.properties["crf"]["visible"], page.shown["crf"]) == (code == "other", value)
        assert app.kept_settings()["crf"] == value
    page.shown["all-padding-choice"] = "lively"
    page.send("all-padding-choice", "input")
    assert app.kept_settings()["all_padding"] == 1


def test_a_choice_that_none_of_ours_is_becomes_a_sentence(page):
    for code in ("draft!", {"a": 1}, [], 7):
        page.shown["resolution-choice"] = code
        page.send("steps", "change")
        assert text(page.shown["outlook"]).startswith(f'"{WORDS("field.resolution")}" must be'), code


def test_each_length_says_how_long_the_video_becomes(page):
    def labels() -> list[str]:
        return [label for label, _ in page.properties["seconds-choice"]["choices"]][:-1]

    page.set(section_seconds=1)
    assert labels() == [f"{n} s\n{true}" for n, true in TRUE_LENGTHS.items()]
    page.set(section_seconds=0.5)
    assert labels()[:2] == ["1 s\n1.37", "2 s\n2.03"]


def test_what_differs_from_the_defaults_is_counted_and_reset_with_an_undo(app, page):
    page.set(steps=9, crf=40, end_frame_strength=0.5)
    changes = page.shown["changes"]
    assert {"steps", "crf", "end-frame-strength"} <= set(
        re.search('data-changed="([^"]*)"', changes)[1].split()
    )
    assert page.properties["reset"]["visible"]
    page.shown["prompt"] = "It stays."
    said = page.click("reset")
    assert (page.shown["steps"], page.shown["crf"], page.shown["prompt"]) == (16, 16, "It stays.")
    assert (app.kept_settings()["steps"], page.shown["crf-choice"]) == (16, "high")
    page.send("steps", "change")
    assert (page.shown["changes"], page.properties["reset"]["visible"]) == ('<p data-changed=""></p>', False)
    page.shown["prompt"] = "It is newer."
    undo(page, said)
    assert (page.shown["steps"], page.shown["crf"], page.shown["crf-choice"]) == (9, 40, "other")
    assert (app.kept_settings()["steps"], page.shown["prompt"]) == (9, "It is newer.")
    unknown = '{"fields": {"steps": "x", "nothing": 1}, "rest": "[]"}'
    for damaged in ("", "[]", "[" * 10**5, '{"fields": [1]}', '{"fields": {}, "rest": 7}', unknown):
        page.shown["refusal"] = f"form:{damaged}"
        page.send("refuse", "click")
        assert page.shown["steps"] == 9


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
    write_png(file, PICTURE, json.dumps(REQUEST))
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
    assert page.shown["start-image"]["path"].endswith("cat.png" + VIEW)


# -- files that come back ----------------------------------------------------------------------------


def test_sliders_reach_as_far_as_a_restored_value(page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, teacache_threshold=7.5, resolution=1536))])
    assert page.shown["teacache-threshold"] == page.properties["teacache-threshold"]["maximum"] == 7.5
    assert (page.shown["resolution-choice"], page.shown["resolution"]) == ("other", 1536)


def test_a_restored_seed_is_used_to_its_last_digit(app, page, tmp_path):
    page.choose("inbox", [page.upload(our_video(tmp_path, seconds=0.5, section_seconds=0.5, steps=1))])
    again = load_request(made(app, page))
    assert (again.negative_prompt, again.seed, again.loop) == ("blurry", 2**53 + 1, True)
    assert page.shown["seed"] == str(2**53 + 1)


def test_a_draft_given_back_is_made_large_from_the_whole_picture(app, page, tmp_path):
    picture = Image.effect_noise((300, 220), 60).convert("RGB")
    picture.save(photo := tmp_path / "photo.png")
    page.choose("start-image", page.upload(photo))
    draft = made(app, page)
    for ending in (".mp4", ".png"):
        page.choose("inbox", [page.upload(draft.with_suffix(ending))])
        content = page.http.get(f"gradio_api/file={page.shown['start-image']['path']}").content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(picture))
    page.set(resolution=128)
    large = load_request(made(app, page))
    assert (large.width, large.height, large.seed) == (128, 96, load_request(draft).seed)
    assert np.array_equal(read_image(large.start_image), np.asarray(picture)), (
        "and it can be made larger still"
    )


def test_a_restored_seed_is_named_so_and_new_pictures_have_a_random_one(app, page, tmp_path, cat):
    brought = our_video(tmp_path, seconds=0.5, section_seconds=0.5, steps=1)
    page.choose("inbox", [page.upload(brought)])
    page.send("prompt", "change")
    named, plain = WORDS("page.seed_from_video"), WORDS("page.seed")
    assert (page.properties["seed"]["label"], page.shown["random-seed"]) == (named, False)
    assert app.kept_settings()["random_seed"] is True, "a file changes no setting about others"
    with PageClient(app.url) as reloaded:
        reloaded.shown["kept"] = page.shown["kept"]
        assert reloaded.open().shown["random-seed"] is False
        reloaded.send("prompt", "change")
        assert (reloaded.properties["seed"]["label"], reloaded.shown["seed"]) == (named, str(REQUEST["seed"]))
        assert reloaded.set(seed="5").properties["seed"]["label"] == plain
        reloaded.choose("start-image", reloaded.upload(cat))
        assert reloaded.shown["random-seed"] is False, "this one was typed"
    before, chosen = dict(page.shown), page.upload(cat)
    page.choose("start-image", chosen)
    page.send("prompt", "change")
    assert (page.properties["seed"]["label"], page.shown["random-seed"]) == (plain, True)
    assert page.properties["seed"]["interactive"] is False
    page.choose("inbox", [page.upload(brought)])
    page.shown |= {"start-image": chosen}
    assert (before["random-seed"], page.shown["random-seed"]) == (False, False)
    assert load_request(made(app, page)).seed != REQUEST["seed"], "also of who starts before the page knows"
    assert page.shown["random-seed"] is True


def test_whatever_is_put_into_the_form_can_be_taken_out_again(app, page, tmp_path, cat):
    start, end = (page.upload(path) for path in (cat, Path(shutil.copy(cat, tmp_path / "end.png"))))
    page.choose("start-image", start)
    made(app, page)
    video = state(app)["results"][0]["id"]
    page.set(steps=100, seconds=60, prompt="It waits.")
    page.click("start")
    wait_until(lambda: state(app)["job"], "the job runs")
    page.click("start")
    (waiting,) = (job["id"] for job in jobs(app) if job["state"] == "waiting")
    rows = [{"section": 1, "prompt": "It sleeps.", "image": to_data_uri(PICTURE)}]
    for with_more in (False, True):
        if with_more:  # hidden settings, rows of sections, and a seed for its pictures
            ours = our_video(tmp_path, keyframes=rows, seconds=3, end_image=to_data_uri(PICTURE))
            page.choose("inbox", [page.upload(ours)])
        else:
            page.choose("start-image", start)
            page.choose("end-image", end)
        page.set(position=0.25)
        page.set(prompt="Mine.", crf=33, all_padding=0.7)
        for act, sent, is_edited in (
            (page.click, ("take-settings", video), False),
            (page.click, ("continue", video), False),
            (page.click, ("edit-job", waiting), True),
            (page.choose, ("inbox", [page.upload(our_video(tmp_path, "other.mp4", steps=7))]), False),
            *([(page.click, ("forget-extras",), False)] if with_more else []),
        ):
            page.send("prompt", "change")
            before, remembered = form(page), memory(app)
            message = act(*sent)
            page.send("prompt", "change")
            assert form(page) != before, act
            assert is_held(app, waiting) == is_edited
            undo(page, message)
            page.send("prompt", "change")
            assert form(page) == before, act
            assert memory(app) == remembered
            assert not is_held(app, waiting)


def test_a_picture_in_whose_place_another_one_was_put_comes_back(page, tmp_path, cat):
    other = page.upload(Path(shutil.copy(cat, tmp_path / "other.png")))
    assert page.choose("start-image", page.upload(cat)) == ""
    assert page.choose("end-image", page.upload(cat)) == ""
    page.set(position=0.25)
    for place, file in (("start-image", other), ("end-image", other), ("inbox", [other])):
        page.send("prompt", "change")
        before = form(page)
        said = page.choose(place, file)
        page.send("prompt", "change")
        assert (text(said), form(page) == before) == (WORDS("page.picture_replaced"), False), place
        undo(page, said)
        page.send("prompt", "change")
        assert form(page) == before, place


def test_the_undo_of_what_takes_the_place_of_an_edited_job_edits_it_again(app, page, tmp_path, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    wait_until(lambda: state(app)["job"], "the job runs")
    page.set(prompt="It waits.")
    page.click("start")
    (waiting,) = (job["id"] for job in jobs(app) if job["state"] == "waiting")
    page.click("edit-job", job=waiting)
    opened = page.choose("inbox", [page.upload(our_video(tmp_path))])
    assert not is_held(app, waiting)
    undo(page, opened)
    assert is_held(app, waiting)
    page.set(prompt="It waits still.")
    page.click("start")
    assert [job["prompt"] for job in jobs(app) if job["state"] == "waiting"] == ["It waits still."]


def test_a_job_is_edited_again_and_its_own_button_brings_the_form_back(app, page, cat):
    first, second = two_waiting(app, page, cat)
    page.set(prompt="My draft.")
    told = WORDS("page.outlook_edited", button=WORDS("page.start_queue"))
    for job in (first, second, first, first):
        page.click("edit-job", job=job)
        page.send("prompt", "change")
        assert (is_held(app, first), is_held(app, second)) == (job == first, job == second)
        assert text(page.shown["outlook"]).endswith(told)
        if page.shown["prompt"] == "One.":
            page.set(prompt="One?")
            page.shown["refusal"] = f"release:{first}"
            page.send("refuse", "click")
            page.send("prompt", "change")
            assert (page.shown["prompt"], is_held(app, first)) == ("My draft.", False)
            assert not text(page.shown["outlook"]).endswith(told)
    page.click("edit-job", job=first)
    page.set(prompt="One, changed.")
    page.click("start")
    assert [job["prompt"] for job in jobs(app) if job["state"] == "waiting"] == ["One, changed.", "Two."]


def form(page: PageClient) -> dict[str, Any]:
    """All that the form of a page holds."""
    return {
        **{
            name: value for name, value in page.shown.items() if name in FIELD_IDS or name.endswith("-choice")
        },
        "rest": json.loads(page.shown["kept"]),
    }


def memory(app: App) -> dict[str, Any]:
    """The settings that are kept; a seed is none of them while it is random."""
    kept = DEFAULTS | app.kept_settings()
    return kept | ({"seed": None} if kept["random_seed"] else {})


def is_held(app: App, job_id: str) -> bool:
    return any(job["id"] == job_id and "release" in job["actions"] for job in jobs(app))


def test_files_hold_nothing_where_they_are_not_to_also_after_one_that_does(app, page, tmp_path):
    page.set(embed_request=False)
    page.choose("inbox", [page.upload(our_video(tmp_path, seconds=0.5, section_seconds=0.5, steps=1))])
    assert page.shown["embed-request"] is False
    assert app.kept_settings()["embed_request"] is False
    video = made(app, page)
    assert not any(b"yawns" in path.read_bytes() for path in app.outputs.glob(f"{video.stem}*"))
    for button in ("again", "take-settings"):
        message = text(page.click(button, job=state(app)["results"][0]["id"]))
        assert message == WORDS("error.settings_left_out", path=video)
    assert text(page.click("continue", job=state(app)["results"][0]["id"])) == WORDS("page.continued")
    page.set(embed_request=True)


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


@pytest.mark.parametrize("name", ["../outside", "cache", "", "//server/share"])
def test_an_unusable_output_folder_is_refused_and_not_kept(app, page, cat, name):
    page.choose("start-image", page.upload(cat))
    before = len(jobs(app))
    message = page.set(output_folder=name).message
    assert "ichi-error" in message
    assert text(message) == text(page.shown["outlook"]), "the estimate shows the error before Start"
    assert text(page.click("start")) == text(message)
    assert len(jobs(app)) == before
    assert page.shown["output-folder"] == name, "it can be corrected"
    assert app.kept_settings().get("output_folder", "outputs") == "outputs"


def test_a_half_typed_output_folder_is_no_setting_and_no_error(app, page):
    promised = page.shown["outlook"]
    page.shown["output-folder"] = "../"
    page.set(steps=2)
    assert app.kept_settings().get("output_folder", "outputs") == "outputs"
    page.set(output_folder="outputs")
    assert text(page.shown["outlook"]) == text(promised)


def test_videos_go_to_any_folder_and_are_served_from_there(app, page, cat, tmp_path):
    page.choose("start-image", page.upload(cat))
    folder = tmp_path / "new" / "猫の動画 #1"
    assert page.set(output_folder=f" {folder} ").message == ""
    assert page.shown["output-folder"] == app.kept_settings()["output_folder"] == str(folder)
    assert not folder.parent.exists(), "nothing is made before there is a video"
    assert page.click("start") == ""
    wait_until(lambda: state(app)["job"] is None and [*folder.glob("*.mp4")], "the video is made")
    (video,) = folder.glob("*.mp4")
    recent = wait_until(lambda: state(app)["recent"]["videos"], "the strip has it")
    assert [item["file"] for item in recent] == [video.name]
    served = page.http.get(recent[0]["video"])
    assert served.content == video.read_bytes()
    assert text(page.click("take-settings", job=recent[0]["id"])) == WORDS("page.restored")


def test_a_path_in_the_apps_folder_is_kept_by_its_name(app, page):
    page.set(output_folder=str(app.home / "outputs" / "cats"))
    assert page.shown["output-folder"] == app.kept_settings()["output_folder"] == "outputs/cats"


def test_a_folder_that_takes_no_files_is_refused_and_not_kept(app, page):
    message = page.set(output_folder="/proc/cats").message
    assert "/proc/cats" in text(message)
    assert "ichi-error" in message
    assert app.kept_settings().get("output_folder", "outputs") == "outputs"


def test_nothing_is_made_for_a_folder_that_takes_no_files(app, page, cat):
    page.choose("start-image", page.upload(cat))
    before = len(jobs(app))
    page.shown["output-folder"] = "/proc/cats"  # a hand that is faster than the answer about it
    assert "ichi-error" in page.click("start")
    assert len(jobs(app)) == before


def test_a_second_job_waits_and_stop_stops_the_shown_one(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    job = wait_until(lambda: state(app)["job"], "the job runs")
    assert text(page.click("start")) == WORDS("page.queued", count=1)
    for job_id in (NOBODYS, job["id"]):
        assert not state(app)["job"]["stopping"]
        page.http.post(f"ichi/jobs/{job_id}/stop", headers={"X-Endframe-Ichi": "1"})
    wait_until(lambda: state(app)["ended"] and state(app)["ended"]["id"] == job["id"], "the job has stopped")
    assert state(app)["ended"]["text"].endswith("was stopped.")


def test_a_waiting_job_comes_back_into_the_form_to_be_changed(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(steps=100, seconds=60)
    page.click("start")
    wait_until(lambda: state(app)["job"], "the job runs")
    page.set(seconds=2, steps=7, prompt="A cat sleeps.")
    page.click("start")
    (waiting,) = (job for job in jobs(app) if job["state"] == "waiting")
    page.set(seconds=3, steps=8, prompt="Another one.")
    page.shown["start-image"] = None
    said = page.click("edit-job", job=waiting["id"])
    assert text(said) == WORDS("live.editing", button=WORDS("page.start_queue"))
    assert (page.shown["seconds"], page.shown["steps"], page.shown["prompt"]) == (2, 7, "A cat sleeps.")
    assert (page.shown["random-seed"], bool(page.shown["start-image"])) == (True, True)
    (held,) = (job for job in jobs(app) if job["id"] == waiting["id"])
    assert (held["state_text"], held["actions"]) == (WORDS("live.state_held"), ["release", "remove"])
    assert text(page.click("edit-job", job=NOBODYS)) == WORDS("live.job_begun")
    with PageClient(app.url) as other:
        assert other.open().shown["prompt"] == "A cat sleeps.", "it is kept, should the page be loaded anew"
    page.set(prompt="A cat wakes.")
    page.click("start")
    assert [job["prompt"] for job in jobs(app) if job["state"] == "waiting"] == ["A cat wakes."]
    page.click("start")
    assert len([job for job in jobs(app) if job["state"] == "waiting"]) == 2, "it edits no job any more"


def test_a_job_waits_again_when_the_form_takes_another_one(app, page, cat):
    first, second = two_waiting(app, page, cat)
    page.click("edit-job", job=first)
    page.click("edit-job", job=second)
    actions = {job["id"]: job["actions"] for job in jobs(app)}
    assert (actions[first], actions[second]) == (["edit", "remove"], ["up", "release", "remove"])
    page.set(prompt="Two, changed.")
    page.click("start")
    assert [job["prompt"] for job in jobs(app) if job["state"] == "waiting"] == ["One.", "Two, changed."]


def test_a_result_can_be_repeated_continued_and_restored(app, page, cat):
    page.choose("start-image", page.upload(cat))
    page.set(prompt="A cat.")
    estimated = text(page.shown["outlook"])
    video = made(app, page)
    job = state(app)["ended"]["id"]
    assert page.shown["seed"] == str(load_request(video).seed)
    (result,) = [result for result in state(app)["results"] if result["file"] == video.name]
    frames, size = re.findall(r"(\d+) frames, .* s, (\d+ × \d+)", estimated)[0]
    assert f"{frames} frames" in result["caption"]
    assert size in result["caption"]

    page.set(prompt="Something else.", steps=7, copy_keyframes=True)
    assert text(page.click("take-settings", job=job)) == WORDS("page.restored")
    assert page.shown["copy-keyframes"], "a video without rows of sections tells nothing of them"
    assert (page.shown["prompt"], page.shown["steps"]) == ("A cat.", 1)
    assert (page.shown["random-seed"], page.shown["seed"]) == (False, str(load_request(video).seed))

    page.choose("end-image", page.upload(cat))
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
    used = page.click("apply-preset")
    assert page.shown["prompt"] == "A cat jumps."
    undo(page, used)
    assert (page.shown["prompt"], text(page.message)) == ("Something else.", "")
    page.click("apply-preset")
    assert page.shown["prompt"] == "A cat jumps."
    assert page.click("apply-preset") == "", "nothing is lost"
    page.shown["startup-preset"] = True
    page.send("startup-preset", "input")
    assert text(page.message) == WORDS("page.preset_marked", name="jump")
    with PageClient(app.url) as other:
        shown = other.open().shown
        assert (shown["preset"], shown["startup-preset"]) == ("jump", True)
    assert text(page.click("save-preset")) == WORDS("page.preset_replaced", name="jump")
    deleted = page.click("delete-preset")
    assert text(deleted) == WORDS("page.preset_deleted", name="jump")
    assert "jump" not in json.dumps(page.properties["preset"]["choices"])
    assert (page.shown["preset"], page.shown["preset-name"]) == (None, "")
    for told in ("", WORDS("live.undo_too_late")):
        undo(page, deleted)
        assert text(page.message) == told
        assert "jump" in json.dumps(page.properties["preset"]["choices"])
        assert (page.shown["preset"], page.shown["preset-name"]) == ("jump", "jump")
    for known in ("jump", None):
        with PageClient(app.url) as other:
            assert other.open().shown["preset"] == known, "it is the start-up prompt again, or gone"
        page.shown["preset"] = "jump"
        page.click("delete-preset")


def test_buttons_without_a_preset_are_refused(page):
    page.shown["preset"] = None
    for button in ("apply-preset", "delete-preset"):
        assert text(page.click(button)) == WORDS("error.choose_preset")


# -- a prompt that is too long ---------------------------------------------------------------------------


def test_a_prompt_longer_than_the_models_read_shows_where_it_is_cut(app, page):
    page.set(prompt="A cat yawns. ")
    assert page.shown["unread"] == ""
    whole = "A cat yawns. " * 200
    end = find_unread(whole, lambda: MODELS / "hunyuanvideo-community" / "HunyuanVideo" / "tokenizer")
    page.set(prompt=whole)
    shown = text(page.shown["unread"])
    assert shown == WORDS("page.unread", words=last_words(whole[:end]))
    assert last_words(whole[:end]).removeprefix("…") in whole[:end]
    with PageClient(app.url) as again:
        assert text(again.open().shown["unread"]) == shown, "also where it comes back"
    page.set(prompt="猫😀" * 400)
    assert re.search("[猫😀]{16}", text(page.shown["unread"]))
    page.set(prompt="")
    assert page.shown["unread"] == ""


@pytest.mark.parametrize(
    ("read", "shown"),
    [
        ("A cat.", "A cat."),
        ("Then a\n large cat slowly walks away", "…walks away"),
        ("It is so that wonderful cats yawn", "…cats yawn"),
        ("猫" * 30, "…" + "猫" * 16),
        ("a" * 30 + " b", "…" + "a" * 14 + " b"),
    ],
)
def test_the_last_words_that_are_read_begin_with_a_whole_one(read, shown):
    assert last_words(read) == shown

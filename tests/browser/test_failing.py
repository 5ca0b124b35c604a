"""Errors on the page: a sentence with what to do, and details to copy."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.driver import WORDS, Screen, like
from tests.support.app import MODELS, App
from webui.eichi_utils.uploads.files import MAX_UPLOAD, MB

CONFIG = Path("lllyasviel") / "FramePackI2V_HY" / "config.json"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app whose transformer was not downloaded completely."""
    models = tmp_path_factory.mktemp("models") / "models"
    shutil.copytree(MODELS, models)
    (models / CONFIG).unlink()
    app = App(tmp_path_factory.mktemp("app"), models=models)
    app.keep_settings()
    app.start()
    yield app
    app.stop()


def copied(screen: Screen, button: str) -> str:
    """The clipboard's text after a button is clicked."""
    screen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    screen.page.locator(button).click()
    expect(screen.page.locator(button)).to_have_text(WORDS("live.copied"))
    text: str = screen.page.evaluate("navigator.clipboard.readText()")
    return text


def test_start_without_a_picture_says_what_to_do(screen: Screen):
    screen.start()
    expect(screen.message).to_have_text(WORDS("error.choose_start_image"))
    expect(screen.page.locator("#start-image")).to_have_css("outline-style", "solid")
    expect(screen.page.locator("#ichi-job")).to_be_hidden()
    assert "choose_start_image" in copied(screen, "#ichi-toast [data-ichi-copy]")
    screen.page.click("#ichi-toast-close")
    expect(screen.message).to_have_count(0)


def test_more_than_can_be_sent_is_refused_before_it_is_sent(screen: Screen, tmp_path):
    """Gradio would send nothing, and say nothing."""
    with (tmp_path / "long.mp4").open("wb") as file:
        file.truncate(MAX_UPLOAD + 1)
    uploads: list[str] = []
    screen.page.on("request", lambda request: "/upload" in request.url and uploads.append(request.url))
    for place in ("#start-image", "#inbox-box"):
        screen.page.locator(f"{place} input[type=file]").first.set_input_files(tmp_path / "long.mp4")
        expect_refusal(screen)
    (tmp_path / "large.png").write_bytes(bytes(11))
    screen.page.evaluate("document.getElementById('ichi-live').dataset.maxUpload = 10")
    for place in ("body", "#start-image"):
        screen.drop(tmp_path / "large.png", on=place)
        expect_refusal(screen)
    assert uploads == []


def expect_refusal(screen: Screen) -> None:
    """Wait for a new message, though it is the same as the one before."""
    message = screen.page.locator("#ichi-toast .ichi-message p:not([data-seen])")
    expect(message).to_have_text(WORDS("page.upload_too_large", megabytes=MAX_UPLOAD // MB))
    message.evaluate("message => message.dataset.seen = ''")


def test_a_failed_job_gives_its_reason_without_the_prompt(screen: Screen, pictures, open_tab, app: App):
    screen.put("start-image", pictures["red"])
    screen.set("prompt", "my secret wish")
    screen.start()
    expect(screen.page.locator("#ichi-failure-title")).to_have_text(like("live.ended_failed"))
    sentence = like("error.model_file_missing", path=".*" + re.escape(str(CONFIG)))
    expect(screen.page.locator("#ichi-failure-text")).to_have_text(sentence)
    expect(open_tab(app).page.locator("#ichi-failure-text")).to_have_text(sentence)
    details = copied(screen, "#ichi-failure-copy")
    assert "model_file_missing" in details
    assert "secret" not in details
    screen.page.click("#ichi-failure-close")
    expect(screen.page.locator("#ichi-failure")).to_be_hidden()


@pytest.mark.slow
def test_an_earlier_failure_does_not_keep_a_new_video_from_the_stage(screen: Screen, pictures, app: App):
    told, config = screen.page.locator("#ichi-failure"), app.models / CONFIG
    screen.put("start-image", pictures["red"])
    screen.start()
    expect(told).to_be_visible()
    screen.put("start-image", pictures["green"])
    expect(told).to_be_hidden()
    shutil.copy(MODELS / CONFIG, config)
    screen.make_video()
    expect(screen.page.locator("#ichi-video")).to_be_visible()
    config.unlink()


NO_JOBS = """
import threading
run = threading.Thread.run
threading.Thread.run = lambda self: None if self.name == "jobs" else run(self)
"""


@pytest.mark.slow
def test_an_app_that_makes_no_videos_any_more_says_so(tmp_path, open_tab: Open, pictures):
    """Nothing should end the thread that makes videos; here it ends at once."""
    (tmp_path / "sitecustomize.py").write_text(NO_JOBS)
    app = App(tmp_path / "home", environment={"PYTHONPATH": str(tmp_path)})
    app.keep_settings()
    app.start()
    screen = open_tab(app)
    screen.put("start-image", pictures["red"])
    screen.start()
    expect(screen.page.locator("#ichi-failure-title")).to_have_text(WORDS("live.trouble"))
    expect(screen.page.locator("#ichi-failure-text")).to_have_text(WORDS("error.jobs_stopped"))
    app.stop()

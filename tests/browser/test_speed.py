"""The choice between exact and fast weights, and the deletion of those that an earlier version has left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from diffusers_helper.files.checksummed import write_checksummed
from tests.browser.conftest import Open
from tests.browser.driver import WORDS
from tests.support.app import App
from tests.support.tiny import MODELS

pytestmark = pytest.mark.slow

EIGHT_BIT = Path("lllyasviel") / "FramePackI2V_HY-8bit"
SHARD = "diffusion_pytorch_model-00001-of-00001.safetensors"


@pytest.fixture
def fast_app(tmp_path: Path, refusal: dict[str, str]) -> Iterator[App]:
    """An app whose models have a folder of their own, with the weights that an earlier version made."""
    models = shutil.copytree(MODELS, tmp_path / "models")
    app = App(tmp_path / "home", models=models, environment=refusal)
    (folder := outdated(app)).mkdir(parents=True)
    (folder / SHARD).write_bytes(bytes(10**8))
    (folder / "mine.txt").write_text("mine")
    status = (folder / SHARD).stat()
    files = [(SHARD, (status.st_size, status.st_mtime_ns), "")]
    facts = {"version": 1, "source": "", "complete": True, "files": files}
    write_checksummed(folder / "conversion.sealed", (), facts)
    app.keep_settings()
    app.start()
    yield app
    app.stop()


def outdated(app: App) -> Path:
    return app.home / "cache" / "eight_bit" / "models" / EIGHT_BIT


def test_the_fast_weights_are_made_with_the_first_video_that_wants_them(fast_app, open_tab: Open, pictures):
    screen = open_tab(fast_app)
    screen.put("start-image", pictures["red"])
    screen.open_panel()
    note = screen.page.locator("#eight-bit-note p")
    expect(note).to_have_count(0)
    screen.choose("eight-bit", "true")
    expect(note).to_contain_text("Before the next video, the 8-bit copy is made in")
    expect(note).to_contain_text("No GPU is in use")
    assert fast_app.kept_settings()["eight_bit"] is True
    copy = fast_app.home.parent / "models" / EIGHT_BIT
    assert not copy.exists()
    screen.make_video()
    expect(note).to_contain_text("The 8-bit copy is ready")
    assert (copy / "conversion.sealed").is_file()
    screen.reload()
    screen.open_panel()
    assert screen.chosen("eight-bit") == "true"
    expect(note).to_contain_text("The 8-bit copy is ready")
    screen.choose_language("ja")
    expect(note).to_contain_text("作成済み")
    screen.choose("eight-bit", "false")
    expect(note).to_have_count(0)
    assert fast_app.kept_settings()["eight_bit"] is False


def test_outdated_weights_are_deleted_by_the_second_click_and_nothing_else(fast_app, open_tab: Open):
    screen = open_tab(fast_app)
    page = screen.page
    line = page.locator("#ichi-setup-lines li", has=page.locator("#ichi-outdated-delete"))
    expect(line).to_contain_text("FramePackI2V_HY-8bit (0.1 GB)", use_inner_text=False)
    page.click("#ichi-setup-title")
    page.click("#ichi-outdated-delete")
    expect(page.locator("#ichi-outdated-delete")).to_have_text(WORDS("live.discard_sure"))
    assert (outdated(fast_app) / SHARD).is_file()
    page.click("#ichi-outdated-delete")
    expect(line).to_have_count(0)
    assert [path.name for path in outdated(fast_app).iterdir()] == ["mine.txt"]

"""The page below a path of a reverse proxy: everything that it loads, sends and watches goes through it."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import SIZE
from tests.browser.driver import WORDS, Screen
from tests.support.app import App
from tests.support.prefix_proxy import prefix_proxy

pytestmark = pytest.mark.slow


def test_a_video_is_made_below_a_path(tmp_path: Path, browser: Browser, pictures, refusal):
    app = App(tmp_path / "home", "--root-path", "/video/", environment=refusal)
    app.keep_settings()
    app.start()
    try:
        with prefix_proxy(app.port, "/video") as url:
            screen = Screen(browser.new_page(viewport=SIZE, locale="en-US"), url).open()
            screen.put("start-image", pictures["red"])
            assert screen.picture("start-image").startswith(url)
            shown = screen.page.locator("#start-image img")
            screen.wait_until(lambda: shown.evaluate("image => image.naturalWidth") == 96, "it is there")
            screen.make_video()
            source = screen.page.locator("#ichi-video").evaluate("video => video.src")
            assert source.startswith(url)
            part = httpx.get(source, headers={"Range": "bytes=0-9"}, trust_env=False)
            assert (part.status_code, len(part.content)) == (206, 10)
            screen.page.click("#again")
            expect(screen.message).to_have_text(WORDS("page.again_queued"))
            screen.reload()
            assert screen.picture("start-image").startswith(url)
            assert [found for found in screen.trouble.found if "/favicon.ico" not in found] == []
            foreign = httpx.post(
                f"{url}ichi/jobs/x/stop", headers={"Origin": "http://a.example"}, trust_env=False
            )
            assert foreign.status_code == 403
    finally:
        app.stop()

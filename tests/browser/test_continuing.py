"""A video is continued on the page: both files are there, and the joined one plays from any frame on."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from diffusers_helper.media.video import read_frames
from tests.browser.driver import NO_ANSWER, WORDS, Screen
from tests.support.app import App

SEEK = """async ([video, seconds]) => {
    video.pause();
    video.currentTime = seconds;
    while (video.seeking)   // a video that had just begun anew says "seeked" for that, too
        await new Promise(done => video.addEventListener("seeked", done, { once: true }));
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


def shown_at(screen: Screen, frame: int) -> np.ndarray:
    """The picture that the stage's video shows at one of its frames."""
    video = screen.page.locator("#ichi-video").element_handle()
    content = screen.page.evaluate(SEEK, [video, (frame + 0.5) / 30])
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def switch(screen: Screen) -> Locator:
    return screen.page.get_by_label(WORDS("page.join"))


def proceed(screen: Screen) -> None:
    with screen.asking():
        screen.page.click("#continue")
    expect(switch(screen)).to_be_visible()
    expect(switch(screen)).to_be_checked()


def test_a_continued_video_is_there_alone_and_joined_and_plays(screen: Screen, app: App, pictures):
    screen.put("start-image", pictures["red"])
    expect(switch(screen)).to_be_hidden()
    caption, before = screen.make_video(), set(app.videos())
    first = next(path for path in before if path.stem in caption)
    proceed(screen)
    screen.set("prompt", "The camera moves in.")
    caption = screen.make_video()
    part, joined = sorted(set(app.videos()) - before)
    frames = [*read_frames(first), *list(read_frames(part))[1:]]
    whole = list(read_frames(joined))
    assert len(whole) == len(frames)
    assert all(np.array_equal(frame, own) for frame, own in zip(frames, whole, strict=True))
    assert caption.startswith(f"{len(frames)} frames")
    screen.page.wait_for_function("document.getElementById('ichi-video').currentTime > 0.1")
    seam, last = len(list(read_frames(first))), len(frames) - 1
    for frame in (last, 0, seam, seam - 1, seam + 3, 2, last):
        # a busy browser still paints the frame before for a while
        screen.wait_until(lambda n=frame: np.abs(shown_at(screen, n) - whole[n]).mean() < 4, f"frame {frame}")
    listed = screen.page.locator("#ichi-strip img")
    expect(listed.nth(0)).to_have_attribute("alt", f"Play: {joined.stem} (The camera moves in.)")
    expect(listed.nth(1)).to_have_attribute("alt", f"Play: {part.stem} (The camera moves in.)")


@pytest.mark.slow
def test_the_switch_goes_with_the_picture_and_comes_back_with_it(screen: Screen, app: App, pictures):
    screen.put("start-image", pictures["red"])
    screen.make_video()
    proceed(screen)
    screen.tick("join", False)
    screen.reload()
    expect(switch(screen)).to_be_visible()
    expect(switch(screen)).not_to_be_checked()
    screen.tick("join")
    screen.trouble.allow(f"{NO_ANSWER}|Server stopped unexpectedly")
    screen.page.evaluate("window.isOld = true")
    app.stop()
    app.start()
    screen.page.wait_for_function("!window.isOld && document.getElementById('start')")
    expect(switch(screen)).to_be_visible()
    expect(switch(screen)).to_be_checked()
    screen.put("start-image", pictures["blue"])
    expect(switch(screen)).to_be_hidden()

"""The page as its user sees it: what can be done, and what stands there. Knows the page's ids, no app."""

import base64
import contextlib
import json
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from tests.support.app import PATIENCE, wait_until
from webui.eichi_utils.text.translations import LOCALES, Translator

TIMEOUT = PATIENCE * 1000
expect.set_options(timeout=TIMEOUT)
WORDS = Translator("en")
"""The words of the page, as long as nobody switches its language."""
INSIDE = Path(__file__).with_name("inside.js")
LEFT_BEHIND = (
    "^AbortError: signal is aborted|Connection errored out|Failed to fetch|^TypeError: network error"
)
"""Messages of Gradio's open requests when its page is left or the app has ended."""
NO_ANSWER = (
    "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_NETWORK"
    "|status of 503 .*/queue/join"
)
"""Messages about requests while the app is not there, or is just ending."""
GONE = "status of 404 .*/temp/uploads/"
"""The message about a picture that is refused, and so deleted, while the page fetches it."""


def pattern(key: str, **values: str) -> str:
    """A regular expression for a sentence of the page; its values are expressions themselves, or anything."""
    template = json.loads((LOCALES / "en.json").read_text("utf-8"))[key]
    parts = Formatter().parse(template)
    return "".join(
        re.escape(text) + (values.get(name, ".*") if name is not None else "") for text, name, _, _ in parts
    )


def like(key: str, **values: str) -> re.Pattern[str]:
    """The same, ready to be looked for."""
    return re.compile(pattern(key, **values))


@dataclass(frozen=True)
class Outlook:
    """The estimate of the (English) page before Start."""

    frames: int
    seconds: float
    width: int
    height: int
    sections: int
    text: str


class Trouble:
    """Problems that no page may have: errors, and requests to another host than the app's own."""

    def __init__(self, page: Page, url: str) -> None:
        self.found: list[str] = []
        self._url = url
        self._allowed = [LEFT_BEHIND]
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("console", self._hear)
        page.on("request", self._ask)

    def allow(self, pattern: str) -> None:
        """Console errors that fit a pattern belong to this test."""
        self._allowed.append(pattern)

    def _hear(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(re.search(pattern, text) for pattern in self._allowed):
            self.found.append(f"console: {text}")

    def _ask(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", f"blob:{self._url}")):
            self.found.append(f"foreign: {request.url[:200]}")


class Screen:
    """One tab. Methods that do something return when the page has settled again."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.trouble = Trouble(page, url)
        self._url = url
        page.add_init_script(path=INSIDE)
        page.set_default_timeout(TIMEOUT)

    # -- the page itself -------------------------------------------------------------------------------------

    def open(self) -> "Screen":
        """Go to the page, and wait until it is filled in and knows the jobs."""
        self.page.goto(self._url)
        return self._wait_until_filled()

    def reload(self) -> "Screen":
        self.page.reload()
        return self._wait_until_filled()

    def _wait_until_filled(self) -> "Screen":
        expect(self.page.locator("#outlook p")).to_be_visible(timeout=TIMEOUT)
        self.page.wait_for_function("document.title !== '' && document.querySelector('[data-ichi-seen]')")
        self.page.wait_for_function("document.getElementById('ichi-empty').textContent !== ''")
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until the server has answered all that the page asked."""
        self.page.wait_for_function("inside.isSettled()")

    def wait_until(self, is_so: Any, what: str) -> Any:
        """Look again and again until something is so, while the browser goes on."""
        return wait_until(is_so, what, pause=lambda seconds: self.page.wait_for_timeout(seconds * 1000))

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Wait at the end of the block for the answers to what the page asked the server in it."""
        before = self.page.evaluate("inside.asked()")
        yield
        self.page.wait_for_function("before => inside.asked() > before && inside.isSettled()", arg=before)

    # -- filling in ------------------------------------------------------------------------------------------

    def put(self, place: str, *paths: Path) -> None:
        """Choose files for a place ("start-image", "section-0" ..., "inbox-box": the Open button)."""
        with self.asking():
            self.page.set_input_files(f"#{place} input[type=file]", list(paths))

    def picture(self, place: str) -> str:
        """The address of the picture in a place ("start-image", "section-0" ...); empty: there is none."""
        # One question: between two, the page may take the picture away, and the second would wait for it.
        first = "pictures => pictures.length ? pictures[0].getAttribute('src') || '' : ''"
        return str(self.page.locator(f"#{place} img").evaluate_all(first))

    def drop(self, *paths: Path, on: str = "body") -> None:
        """Drop files anywhere on the page, as a mouse does."""
        files = [
            {
                "name": path.name,
                "type": mimetypes.guess_type(path.name)[0] or "",
                "content": base64.b64encode(path.read_bytes()).decode(),
            }
            for path in paths
        ]
        with self.asking():
            self.page.evaluate("inside.drop", [files, on])

    def open_panel(self) -> None:
        """Open the panel of further settings."""
        self.page.click("#panel > button.label-wrap")
        expect(self.page.locator("#steps")).to_be_visible()

    def open_presets(self) -> None:
        """Open the panel, and the presets in it."""
        self.open_panel()
        self.page.click("#presets > button.label-wrap")
        expect(self.page.locator("#preset-name")).to_be_visible()

    def set(self, field: str, value: float | str) -> None:
        """Type a value into a field; sliders and texts alike."""
        typed = f"{value:g}" if isinstance(value, float | int) else value
        if self.page.locator(f"#{field}-choice").count():
            self.choose(f"{field}-choice", "other")
            expect(self._input(field)).to_be_visible()
        if self.value(field) == typed:
            return
        with self.asking():
            self._input(field).fill(typed)
            self._input(field).press("Tab")

    def value(self, field: str) -> str:
        """The text in a field."""
        return self._input(field).input_value()

    def tick(self, field: str, on: bool = True) -> None:
        box = self.page.locator(f"#{field} input[type=checkbox]")
        if box.is_checked() != on:
            with self.asking():
                box.set_checked(on)

    def is_ticked(self, field: str) -> bool:
        return self.page.locator(f"#{field} input[type=checkbox]").is_checked()

    def choose(self, field: str, value: str) -> None:
        """Choose one of several by its code."""
        if self.chosen(field) == value:
            return
        with self.asking():
            self.page.check(f"#{field} input[value='{value}']")

    def choose_language(self, language: str) -> None:
        with self.asking():
            self.page.select_option("#ichi-language", language)

    def chosen(self, field: str) -> str:
        return self.page.locator(f"#{field} input:checked").get_attribute("value") or ""

    def click(self, button: str) -> None:
        """Click a button that asks the server something."""
        with self.asking():
            self.page.click(f"#{button}")

    def _input(self, field: str) -> Locator:
        kinds = ("textarea", "input[type=number]", "input[type=text]", "input:not([type])")
        return self.page.locator(", ".join(f"#{field} {kind}" for kind in kinds)).first

    # -- what stands there -----------------------------------------------------------------------------------

    def text(self, name: str) -> str:
        return self.page.locator(f"#{name}").inner_text().strip()

    @property
    def message(self) -> Locator:
        return self.page.locator("#ichi-toast .ichi-message p")

    def click_undo(self, words: str = "live.undo") -> None:
        """Press the button in the toast that takes something back."""
        self.page.locator("#ichi-toast").get_by_role("button", name=WORDS(words)).click()

    def outlook(self) -> Outlook:
        """The page's estimate, which has a size as soon as there is a start image."""
        number, length, one = r"(\d+)", r"([\d.]+)", pattern("page.outlook_one_section")
        text = self.page.locator("#outlook p").inner_text()
        found = re.match(
            pattern("page.outlook", frames=number, seconds=length)
            + pattern("page.outlook_size", width=number, height=number)
            + f"(?:{one}|{pattern('page.outlook_sections', sections=number)})",
            text,
        )
        assert found is not None, text
        frames, seconds, width, height, sections = found.groups()
        return Outlook(int(frames), float(seconds), int(width), int(height), int(sections or 1), text)

    # -- jobs ------------------------------------------------------------------------------------------------

    def record(self) -> None:
        """Record everything that the live half shows from now on."""
        self.page.evaluate("inside.record()")

    def recorded(self) -> list[dict[str, Any]]:
        """All that was shown since `record`, one after the other."""
        seen: list[dict[str, Any]] = self.page.evaluate("inside.seen()")
        return seen

    def start(self) -> None:
        self.click("start")

    def stop(self) -> None:
        self.page.click("#stop")

    def wait_until_running(self) -> None:
        expect(self.page.locator("#ichi-job")).to_be_visible(timeout=TIMEOUT)

    def wait_until_stepping(self) -> None:
        expect(self.page.locator("#ichi-status")).to_contain_text(like("live.step"))

    def wait_until_idle(self) -> None:
        expect(self.page.locator("#ichi-job")).to_be_hidden(timeout=TIMEOUT)

    def make_video(self) -> str:
        """Press Start and wait for the video; gives what stands below it."""
        before = self.text("ichi-caption")
        self.start()
        return self.wait_for_result(before)

    def wait_for_result(self, before: str = "") -> str:
        """Wait for a finished video that is not the one `before`; gives what stands below it."""
        self.page.wait_for_function(
            """before => {
                const text = document.getElementById('ichi-caption').textContent.trim();
                const isIdle = document.getElementById('ichi-job').hidden;
                return isIdle && text !== before && text.includes('made in');
            }""",
            arg=before,
        )
        return self.text("ichi-caption")

    def queue(self) -> list[dict[str, Any]]:
        """The list of jobs as it stands there: state, name, prompt and buttons of each."""
        rows: list[dict[str, Any]] = self.page.evaluate("inside.queue()")
        return rows

    def end_jobs(self) -> None:
        """Empty the queue and stop what runs."""
        self.page.evaluate("inside.endJobs()")
        self.wait_until_idle()

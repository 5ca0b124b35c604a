"""The page without a browser: sends what a browser would send, and keeps what it would show."""

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import PATIENCE

META = {"_type": "gradio.FileData"}
ENGLISH_WITHOUT_SCREEN = {"LC_ALL": "en_US.UTF-8", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
"""The environment of an app that speaks English on its terminal and cannot open a window."""
LOGIN = "mia:p\u00e4ssword:1"
"""Name and password of an app that asks for them."""
JOB = "the job's id"
"""Stands for the hidden fields that the page's script fills in."""


class PageClient:
    """One page of one app. `shown` holds the value of each widget by its id in the page.

    Args:
        url: of the app, with a slash at its end.
        headers: sent with everything, such as a password.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.http = httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE, headers=headers)
        self._session = secrets.token_hex(5)
        config = self.http.get("config").json()
        self._widgets = {widget["id"]: widget for widget in config["components"]}
        self._calls = config["dependencies"]
        self.shown = {
            self._name(number): widget["props"].get("value") for number, widget in self._widgets.items()
        }
        self.properties: dict[str, dict[str, Any]] = {
            self._name(number): dict(widget["props"]) for number, widget in self._widgets.items()
        }

    def __enter__(self) -> "PageClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def open(self) -> "PageClient":
        """Do what a browser does after loading the page."""
        loads = [call["id"] for call in self._calls if any(event == "load" for _, event in call["targets"])]
        (call,) = [call for call in self._calls if call["trigger_after"] in loads and call["backend_fn"]]
        self._run_all(call)
        return self

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """Send a file; gives what a widget that holds it has as its value."""
        files = {"files": (name or path.name, path.read_bytes())}
        (stored,) = self.http.post("gradio_api/upload", files=files).json()
        return {"path": stored, "meta": META, "orig_name": name or path.name}

    def set(self, **values: Any) -> "PageClient":
        """Fill in widgets by hand (`_` stands for `-`), then let the page look at what was filled in."""
        filled = {name.replace("_", "-"): value for name, value in values.items()}
        filled |= {f"{name}-choice": "other" for name in filled if f"{name}-choice" in self.shown}
        self.shown |= filled
        for name in filled:
            self.send(
                name, next(event for event in ("input", "change", "blur") if self._calls_of(name, event))
            )
        if self._calls_of(name := next(iter(filled)), "change"):
            self.send(name, "change")
        return self

    def click(self, name: str, job: str = "") -> str:
        """Press a button; gives the message that stands on the page then."""
        self.shown[JOB] = job
        self.send(name, "click")
        return self.message

    def choose(self, name: str, file: Any) -> str:
        """Put an uploaded file into a widget; gives the message."""
        self.shown[name] = file
        self.send(name, "upload")
        return self.message

    def send(self, name: str, event: str) -> None:
        """Make an event of a widget happen, and everything that follows from it.

        Raises:
            AssertionError: the server answered with an error of its own instead of a message on the page.
        """
        calls = self._calls_of(name, event)
        assert calls, f"{name} has no {event}"
        for call in calls:
            self._run_all(call)

    def _run_all(self, call: Mapping[str, Any]) -> None:
        """Run a call and those that follow it."""
        if call["backend_fn"]:
            self._run(call)
        for following in self._calls:
            if following["trigger_after"] == call["id"] and following["backend_fn"]:
                self._run(following)

    def _calls_of(self, name: str, event: str) -> list[dict[str, Any]]:
        numbers = [number for number in self._widgets if self._name(number) == name]
        return [call for call in self._calls if [numbers[0], event] in call["targets"]]

    @property
    def message(self) -> str:
        return str(self.shown["message"] or "")

    def _name(self, number: int) -> str:
        widget = self._widgets[number]
        name = widget["props"].get("elem_id")
        hidden = widget["type"] == "textbox" and not name
        return JOB if hidden else str(name or f"{widget['type']} {number}")

    def _run(self, call: Mapping[str, Any]) -> None:
        data = [self.shown[self._name(number)] for number in call["inputs"]]
        answer = self._ask(call["id"], data)
        assert answer["success"], answer["output"]
        for number, change in zip(call["outputs"], answer["output"]["data"], strict=True):
            name = self._name(number)
            if not isinstance(change, dict) or change.get("__type__") != "update":
                self.shown[name] = change
                continue
            self.properties[name] |= change
            if "value" in change:
                self.shown[name] = change["value"]

    def _ask(self, number: int, data: list[Any]) -> dict[str, Any]:
        """Send one call as the page does; gives the last word on it."""
        body = {"data": data, "fn_index": number, "session_hash": self._session, "event_data": None}
        sent = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        event = self.http.post("gradio_api/queue/join", **sent).json()["event_id"]
        return last_word(self.http, self._session, event)


def last_word(client: httpx.Client, session: str, event: str) -> dict[str, Any]:
    """Returns the last message about a call of a page."""
    end = time.monotonic() + PATIENCE
    with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            assert time.monotonic() < end, "no answer comes"
            message = json.loads(line.removeprefix("data: ")) if line else {}
            if message.get("msg") == "process_completed" and message.get("event_id") == event:
                return dict(message)
    raise AssertionError("the stream ended without an answer")

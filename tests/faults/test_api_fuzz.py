"""A thousand calls with whatever comes to mind: the app answers, keeps quiet and keeps its size."""

import concurrent.futures
import functools
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.app import PATIENCE, App, wait_until
from tests.support.page_client import META, PageClient, last_word
from tests.support.process_memory import resident
from webui.eichi_utils.text.translations import Translator
from webui.eichi_utils.uploads.files import MB

CALLS = 1000
ACTIONS = ("stop", "keep", "remove", "up", "finish", "short", "discard", "restore")
"""The actions on a job, each an address of its own."""
OURS = {"X-Endframe-Ichi": "1"}


@pytest.fixture
def http(app: App) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, trust_env=False, timeout=PATIENCE) as client:
        yield client


# -- values ------------------------------------------------------------------------------------------

NUMBERS: list[Any] = [None, True, False, 0, -1, 1, 2**63, -(10**300), 0.5, 1e308]
TEXTS = ["", " ", "x", "0", "1e9", "\0", "\ud800", "\u202e\u732b\U0001f431", "%s%n", "x" * 10_000]
TEXTS += ["../../etc/passwd", "data:image/png;base64,AAAA", "http://127.0.0.1:1/x.png", "{0.__class__}"]
TEXTS += ["<script>alert(1)</script>"]
OBJECTS: list[Any] = [{}, {"path": None}, {"path": 7}, {"path": "/etc/passwd"}, {"path": "x", "meta": META}]
OBJECTS += [{"image": {"path": "x"}}, {"video": []}, {"__type__": "update", "value": 1}, {"section": 0}]
OBJECTS += [{"keyframes": [{"section": 0, "image": "/etc/passwd"}]}, {"steps": "many"}]
OBJECTS += [{"value": float("inf")}, [], [None], [[[[[[]]]]]], ["x"] * 1000]
ODD: list[Any] = [*NUMBERS, *TEXTS, *OBJECTS]


def anything(draw: random.Random, depth: int = 0) -> Any:
    """An odd value, or some inside each other."""
    if depth > 2 or draw.random() < 0.7:
        return draw.choice(ODD)
    inner = [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    return inner if draw.random() < 0.5 else {str(draw.choice(ODD))[:20]: value for value in inner}


Call = Callable[[httpx.Client, random.Random], httpx.Response]


def as_json(value: object) -> bytes:
    """JSON as Python writes it: with NaN, and with halves of characters as codes."""
    return json.dumps(value).encode()


def post(client: httpx.Client, path: str, body: object) -> httpx.Response:
    content = body if isinstance(body, bytes) else as_json(body)
    return client.post(path, content=content, headers={"Content-Type": "application/json"} | OURS)


def named(client: httpx.Client, draw: random.Random) -> httpx.Response:
    """An endpoint for programs, with the right number of values or another, and what comes of it."""
    name = draw.choice(["generate", "queue", "stop", "finish", "discard", "nothing", "_draw", "open_page"])
    values = [anything(draw) for _ in range(draw.choice([0, 1, 5, 5, 6]))]
    if draw.random() < 0.3:
        return post(client, f"gradio_api/{draw.choice(['run', 'api'])}/{name}", {"data": values})
    if draw.random() < 0.2:
        values = {"start_image": anything(draw), "x": anything(draw)}
        return post(client, f"gradio_api/call/v2/{name}", values)
    answer = post(client, f"gradio_api/call/{name}", {"data": values})
    if answer.status_code != 200:
        return answer
    return client.get(f"gradio_api/call/{name}/{answer.json()['event_id']}")


def private(client: httpx.Client, draw: random.Random) -> httpx.Response:
    """A handler of the page, by its number, as the page calls it: some values odd, others as they stand."""
    calls, known = page_of(client.base_url)
    call = draw.choice(calls)
    widgets = [known.get(number) for number in call["inputs"]]
    values = [anything(draw) if draw.random() < 0.5 else value for value in widgets]
    if draw.random() < 0.1:
        values = values[: draw.randrange(len(values) + 1)]
    session = f"{threading.get_ident()} {draw.randrange(5)}"  # who listens to another's hears its answers
    body = {"data": values, "fn_index": call["id"], "session_hash": session, "event_data": anything(draw)}
    if draw.random() < 0.1:
        body[draw.choice(["data", "fn_index", "event_data", "trigger_id", "x"])] = anything(draw)
    if draw.random() < 0.02:
        body["session_hash"] = draw.choice([None, 7, [], {}, True])
    if draw.random() < 0.2:
        return post(client, f"gradio_api/run/{draw.choice(['predict', 'x'])}", body)
    answer = post(client, "gradio_api/queue/join", body)
    if answer.status_code == 200:
        said = last_word(client, str(body["session_hash"]), answer.json()["event_id"])
        answer.extensions["last word"] = said
    return answer


@functools.cache
def page_of(url: httpx.URL) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """Returns the page's handlers, and the values of its widgets, from its configuration."""
    config = httpx.get(f"{url}config", trust_env=False, timeout=PATIENCE).json()
    calls = [call for call in config["dependencies"] if call["backend_fn"]]
    return calls, {widget["id"]: widget["props"].get("value") for widget in config["components"]}


OWN_PATHS = [f"ichi/jobs/{{job}}/{action}" for action in (*ACTIONS, "{word}")]
OWN_PATHS += ["ichi/download/cancel", "ichi/download/{word}", "ichi/hello", "ichi/{word}"]
OWN_PATHS += ["ichi/jobs/{job}/preview/1", "ichi/jobs/{job}/preview/-1", "ichi/jobs/{job}/preview/{word}"]
OWN_PATHS += ["ichi/jobs/{job}/thumbnail", "ichi/jobs/{job}/video/1.mp4", "ichi/jobs/{job}/video/{word}.mp4"]
GRADIOS_PATHS = [f"gradio_api/{name}" for name in ("upload", "cancel", "reset", "component_server", "{word}")]
GRADIOS_PATHS += [f"gradio_api/{name}/{{word}}" for name in ("stream", "heartbeat")]
GRADIOS_PATHS += ["gradio_api/queue/join", "gradio_api/file={word}", "gradio_api/info?all_endpoints=true"]
GRADIOS_PATHS += ["gradio_api/upload_progress?upload_id={word}", "config?page={word}&deep_link={word}"]
GRADIOS_PATHS += ["?{word}", "theme.css?v={word}"]
FORMS = ["application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x"]


def as_part(value: object) -> str:
    """A value as a part of an address."""
    return quote(str(value).encode("utf-8", "replace")[:200], safe="")


def own(client: httpx.Client, draw: random.Random) -> httpx.Response:
    """One of the app's own addresses."""
    word = as_part(anything(draw))
    job = draw.choice([word, "0123456789abcdef", "%00", "..", "%2e%2e"])
    path = draw.choice(OWN_PATHS).format(job=job, word=word)
    return client.request(draw.choice(["GET", "POST", "PUT", "DELETE", "PATCH"]), path, headers=OURS)


def gradios(client: httpx.Client, draw: random.Random) -> httpx.Response:
    """One of gradio's addresses, with whatever body."""
    path = draw.choice(GRADIOS_PATHS).format(word=as_part(anything(draw)))
    if draw.random() < 0.3:
        return client.get(path)
    body = draw.choice([as_json(anything(draw)), b"\xff\xfe{", b"{", b"", as_json({"data": anything(draw)})])
    return client.post(path, content=body, headers={"Content-Type": draw.choice(FORMS)})


KINDS: list[Call] = [named, named, private, private, private, own, gradios]


def call_all(app: App, seed: int, count: int) -> list[str]:
    """Make so many random calls, one after another; returns what was wrong with the answers."""
    draw, wrong = random.Random(seed), []
    with httpx.Client(base_url=app.url, trust_env=False, timeout=PATIENCE) as client:
        for number in range(count):
            answer = draw.choice(KINDS)(client, draw)
            said = shown(answer).replace(
                str(app.home / "temp" / "uploads" / "sample"), ""
            )  # a picture's address
            if "Traceback" in said or 'File "' in said or str(app.home) in said or UNKNOWN in said:
                asked = f"{answer.request.method} {answer.request.url} {answer.request.content[:300]!r}"
                wrong.append(f"{seed}.{number}: {asked}: {said[:1000]}")
    return wrong


UNKNOWN = f"<p>{Translator('en')('error.unexpected', reason='', place='').partition(':')[0]}"
"""The beginning of a message about an error that the app does not know."""
COPIED = re.compile(r'data-ichi-copy=\\*"[^"]*"')
"""The details that a button copies for support: they hold a traceback, and nobody sees them."""
FOLDER = re.compile(re.escape(Translator("en")("page.folder_is", path="")) + "[^<]*")
"""The message with the path of the folder for videos, where nothing can open it."""


def shown(answer: httpx.Response) -> str:
    """Returns the visible part of an answer and of the last message about it."""
    last = answer.extensions.get("last word")
    return FOLDER.sub("", COPIED.sub("", answer.text + json.dumps(last)))


# -- the calls ---------------------------------------------------------------------------------------


def test_a_hundred_odd_calls_are_answered_quietly(app, http):
    assert call_all(app, 0, CALLS // 10) == []
    assert http.get("ichi/hello").json()["app"] == "endframe-ichi"
    assert post(http, "gradio_api/run/queue", {"data": []}).json()["data"] == [[]], "nothing was queued"
    said = app.said().splitlines()
    assert said == said[:1], "the terminal stays quiet"


@pytest.mark.slow
def test_a_thousand_calls_leave_the_app_as_it_was(app, http):
    assert call_all(app, 0, CALLS // 10) == [], "the first ones warm it up"
    before = resident(app.pid)
    threads = 2
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(call_all, app, 1 + part, CALLS // threads) for part in range(threads)]
        assert [wrong for part in parts for wrong in part.result()] == []
    assert http.get("gradio_api/queue/status").json()["queue_size"] == 0
    wait_until(lambda: resident(app.pid) - before < 80 * MB, f"the memory is as before ({before // MB} MB)")
    assert sum(file.stat().st_size for file in (app.home / "logs").glob("*.log")) in range(1, 5 * MB)
    with PageClient(app.url) as page:
        assert page.open().shown["start"], "a page opens as ever"

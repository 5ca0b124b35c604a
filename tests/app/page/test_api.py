"""The endpoints for programs, used as a program uses them: through gradio's client, against a running app."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.plan import make_plan
from diffusers_helper.request import GenerationRequest
from tests.support.app import App, wait_until
from webui.eichi_utils.text.translations import Translator

WORDS = Translator("en")
SMALL: dict[str, Any] = {"resolution": 64, "steps": 1, "section_seconds": 0.5, "seed": 7}
LONG: dict[str, Any] = {"resolution": 64, "steps": 100}


@pytest.fixture(scope="module")
def client(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("downloads")
    yield (
        client := Client(
            app.url, verbose=False, download_files=str(folder), httpx_kwargs={"trust_env": False}
        )
    )
    client.close()


@pytest.fixture
def idle(client: Client) -> Iterator[None]:
    """Jobs that are left are stopped."""
    yield
    for job in client.predict(api_name="/queue"):
        client.predict(job["id"], api_name="/stop")
    wait_until(lambda: not under_way(client), "all jobs have ended")


def under_way(client: Client) -> list[dict[str, Any]]:
    return [job for job in client.predict(api_name="/queue") if job["state"] in ("running", "waiting")]


def refusal(client: Client, *arguments: Any, **named: Any) -> str:
    """The sentence that comes instead of a video; nothing was queued."""
    before = client.predict(api_name="/queue")
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name="/generate", **named)
    assert client.predict(api_name="/queue") == before
    text = str(caught.value)
    assert text.endswith((".", "?"))
    assert "Traceback" not in text
    assert "\n" not in text
    return text


def test_only_these_endpoints_are_offered(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/generate", "/queue", "/stop", "/finish", "/discard"}


def test_a_program_gets_its_video(client, app, cat):
    path = client.predict(
        handle_file(str(cat)), "A cat.", 1, handle_file(str(cat)), SMALL, api_name="/generate"
    )
    request = load_request(Path(path))
    expected = GenerationRequest.from_dict(
        SMALL | {"prompt": "A cat.", "seconds": 1, "start_image": "x", "end_image": "x"}
    )
    plain = {"start_image": None, "end_image": None, "width": None, "height": None}
    assert dataclasses.replace(request, **plain) == dataclasses.replace(expected, **plain)
    assert (request.width, request.height) == (96, 64)
    assert request.end_image is not None
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == make_plan(expected).pixel_frames
    (kept,) = app.videos()
    assert kept.read_bytes() == Path(path).read_bytes()
    (job,) = client.predict(api_name="/queue")
    assert (job["state"], job["fraction"], job["name"]) == ("done", 1, kept.stem)


def test_wrong_values_are_refused_in_a_sentence(client, app, cat, tmp_path):
    (no_picture := tmp_path / "no_picture.png").write_text(json.dumps({"prompt": "x"}), "utf-8")
    inner = {"keyframes": [{"section": 0, "image": "data:image/png;base64,AAAA"}]}
    for image, seconds, settings, sentence in (
        (cat, 0, SMALL, '"Length in seconds" must be'),
        (cat, 1, {"step": 5}, WORDS("error.unknown_key", field="step", nearest="steps")),
        (cat, 1, {"prompt": "x"}, WORDS("error.unknown_key", field="settings.prompt", nearest="prompt")),
        *((cat, 1, settings, "The request must be one JSON object") for settings in ([], "steps=5", 7)),
        (cat, 1, SMALL | inner, WORDS("error.no_paths_from_clients")),
        (cat, 1, SMALL | {"previous_video": "/a.mp4"}, WORDS("error.no_paths_from_clients")),
        (no_picture, 1, SMALL, "no_picture.png is not a picture that this app can read"),
    ):
        assert sentence in refusal(client, handle_file(str(image)), "A cat.", seconds, None, settings)
    assert not [*(app.home / "temp" / "uploads").rglob(no_picture.name)], "what is no picture is deleted"


def test_only_an_upload_is_taken_as_a_picture(client, cat):
    upload = handle_file(str(cat))
    for key in ("start_image", "end_image"):
        for file, shown in (({"path": str(cat)}, str(cat)), ("/etc/passwd", "/etc/passwd")):
            text = refusal(client, prompt="A cat.", settings=SMALL, **{"start_image": upload, key: file})
            assert text == WORDS("error.image_missing", image=shown)
    for nothing in (None, {"url": "http://127.0.0.1/x.png"}, {}):
        assert refusal(client, nothing, "A cat.", 1, None, SMALL) == WORDS("error.no_start_image")


@pytest.mark.usefixtures("idle")
def test_a_running_job_can_be_stopped_and_a_waiting_one_removed(client, cat):
    """The queue answers while many programs wait."""
    arguments = (handle_file(str(cat)), "A cat.", 60, None, LONG)
    calls = [client.submit(*arguments, api_name="/generate") for _ in range(12)]
    states = ["running", *["waiting"] * 11]
    wait_until(lambda: [job["state"] for job in under_way(client)] == states, "one runs, the others wait")
    assert len({job["name"] for job in under_way(client)}) == 12
    for job in under_way(client)[::-1]:
        assert client.predict(job["id"], api_name="/stop") is True
    for call in calls:
        with pytest.raises(AppError) as caught:
            call.result(timeout=60)
        assert str(caught.value) == WORDS("page.job_gone")
    for no_job in ("", "0123456789abcdef", "../x", None, 7, {"a": 1}):
        assert client.predict(no_job, api_name="/stop") is False

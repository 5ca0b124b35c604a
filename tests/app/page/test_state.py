"""The state that pages show: every one in every language, and no job under another's name."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.events import Stage
from diffusers_helper.request import GenerationRequest
from tests.support.page_state import EMPTY_PREFLIGHT
from webui.eichi_utils.download.download import DownloadView
from webui.eichi_utils.download.licences import licence_lines
from webui.eichi_utils.download.model_folders import ModelFolders, take_inventory
from webui.eichi_utils.jobs.job import Job, JobSpec, Progress
from webui.eichi_utils.jobs.view import QueueView
from webui.eichi_utils.page import state as state_module
from webui.eichi_utils.page.routes import STATIC
from webui.eichi_utils.page.state import MODEL_GB, SHOWN_PROMPT, WORDS, page_state
from webui.eichi_utils.preflight import PreflightView
from webui.eichi_utils.support.failures import Failure
from webui.eichi_utils.text.translations import LANGUAGES, Translator

ENGLISH = Translator("en")
STAGES = get_args(Stage)
KEY_OR_PLACEHOLDER = r"{\w*}|\b(stage|live|page|notice|error|setup)\.\w+$"


def job(number: int = 1, state: Any = "waiting", **values: Any) -> Job:
    """A job as a page sees it; a running one is in the middle of its second section."""
    progress = Progress()
    if state == "running":
        progress = Progress("sampling", 1, 3, 4, 16, 109, 109 / 30, 640, 608, 95.0, 0.4567)
    if state == "done":
        progress = Progress(None, 2, 3, 16, 16, 109, 109 / 30, 640, 608, None, 1.0)
    prompt = values.pop("prompt", f"Prompt {number}.")
    request = GenerationRequest(start_image="cat.png", prompt=prompt, seed=number)
    plain = Job(
        JobSpec(f"{number:016x}", f"261124_{number:06}", Path("outputs"), request, Path("work")),
        thumbnail=b"WEBP",
        state=state,
        progress=progress,
        preview=np.zeros((1, 1, 1, 3), np.uint8) if state == "running" else None,
        preview_number=3 if state == "running" else 0,
        elapsed=None if state == "waiting" else 61.0,
    )
    return replace(plain, **values)


def test_what_stops_the_whole_app_is_shown_in_place_of_a_failure():
    view = QueueView(1, None, (), (failed(1),))
    shown = {"server": "s", "sound": True}
    for trouble in (Failure("jobs_stopped", {}, "d"), Failure("home_moved", {"path": "/app"}, "d")):
        for language in LANGUAGES:
            words = Translator(language)
            failure = page_state(view, EMPTY_PREFLIGHT, words, **shown, trouble=trouble)["outcome"]
            assert (failure["id"], failure["title"]) == (trouble.code, words("live.trouble"))
            assert failure["stays"], "whatever is chosen"
            assert failure["text"] == words(f"error.{trouble.code}", **trouble.values)
    assert page_state(view, EMPTY_PREFLIGHT, ENGLISH, **shown)["outcome"]["title"] != ENGLISH("live.trouble")


def done(number: int, frames: int = 109) -> Job:
    return job(number, "done", video=Path(f"outputs/{number}.mp4"), frames=frames)


def failed(number: int, video: Path | None = None) -> Job:
    failure = Failure("out_of_memory", {}, "Traceback <b>")
    return job(number, "failed", failure=failure, video=video, frames=36 if video else 0)


def view(
    running: Job | None = None, waiting: tuple = (), ended: tuple = (), unfinished: tuple = ()
) -> QueueView:
    return QueueView(7, running, tuple(waiting), tuple(ended), tuple(unfinished))


def state_of(
    queue: QueueView, words: Translator = ENGLISH, preflight: PreflightView = EMPTY_PREFLIGHT
) -> dict[str, Any]:
    return page_state(queue, preflight, words, server="s", sound=True)


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_in(inner)


NOTICES = (
    ("prompt_too_long", {"prompt": "A", "tokens": 3}),
    ("demo_models", {"path": "models"}),
    ("section_damaged", {"section": 2, "sections": 3}),
)
KEPT = Path("outputs/1_unfinished.mp4")
PROGRESS = job(1, "running").progress
VIEWS = {
    "idle": view(),
    "waiting": view(job(1, "running", progress=Progress()), [job(2), job(3, prompt="")]),
    "getting ready": view(job(1, "running", progress=Progress())),
    "running": view(job(1, "running", video=Path("a.mp4"), frames=36)),
    "noticed": view(job(1, "running", notices=NOTICES)),
    "stopping": view(job(1, "running", stopping=True)),
    "done": view(ended=[done(1)]),
    "failed": view(ended=[failed(1)]),
    "failed with some kept": view(ended=[failed(1, KEPT)]),
    "stopped": view(ended=[job(1, "stopped")]),
    "stopped with some kept": view(ended=[job(1, "stopped", video=KEPT, frames=36)]),
    "all at once": view(
        job(1, "running"), [job(2)], [done(3), failed(4)], [job(5, "stopped", video=KEPT, can_finish=True)]
    ),
    "interrupted": view(unfinished=[job(1, "interrupted", can_finish=True)]),
}
MOMENTS = {"unhurried": {"seconds_left": None}, "hours": {"seconds_left": 9e4}, "before a step": {"step": 0}}
MOMENTS |= {f"stage {stage}": {"stage": stage} for stage in STAGES}
VIEWS |= {
    name: view(job(1, "running", progress=replace(PROGRESS, **values))) for name, values in MOMENTS.items()
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", sorted(VIEWS))
def test_every_state_has_words_in_every_language(name, language):
    state = state_of(VIEWS[name], Translator(language))
    sent = json.loads(json.dumps(state))
    assert sent == state, "nothing but JSON, which the browser gets"
    for text in texts_in(state):
        assert not re.search(KEY_OR_PLACEHOLDER, text)
    assert all(state["words"].values())


def test_another_language_changes_words_and_nothing_else():
    texts = {"title", "words", "text", "status", "left", "label", "caption", "state_text", "notices", "kept"}
    texts |= {"start", "stop", "waiting", "finish"}

    def without_words(state: object) -> object:
        if isinstance(state, dict):
            return {key: without_words(value) for key, value in state.items() if key not in texts}
        return [without_words(value) for value in state] if isinstance(state, list) else state

    states = [state_of(VIEWS["all at once"], Translator(code)) for code in LANGUAGES]
    assert without_words(states[0]) == without_words(states[1]) == without_words(states[2])
    assert len({json.dumps(state["words"]) for state in states}) == len(LANGUAGES)


def test_the_page_gets_the_words_of_its_files():
    named = (path.read_text("utf-8") for path in STATIC.iterdir() if path.suffix in (".html", ".js"))
    asked = {key for text in named for key in re.findall(r"""["'`]((?:live|setup)\.\w+)["'`]""", text)}
    asked |= {f"live.{action}" for action in ("show", "up", "edit", "release", "remove")}
    asked |= {f"live.{action}" for action in ("finish", "short", "discard")}
    asked |= {"page.language", "page.not_sent"}  # of the menu, which Python writes, and of a toast
    assert asked == set(WORDS)


# -- the running job ---------------------------------------------------------------------------------


def running(**values: Any) -> dict[str, Any]:
    """The state of a running job, as the page shows it."""
    shown: dict[str, Any] = state_of(view(job(1, "running", **values)))["job"]
    return shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"progress": Progress()}, {"status": "Getting ready"}),
        ({"progress": Progress("prompt")}, {"status": "Reading the prompt"}),
        ({"progress": Progress("sampling", 1, 3, 0, 16)}, {"status": "Section 2 of 3, sampling"}),
        ({"progress": Progress("sampling", 1, 3, 4, 16)}, {"status": "Section 2 of 3, step 4 of 16"}),
        ({"progress": Progress("decoding", 2, 3, 16, 16)}, {"status": "Section 3 of 3, decoding"}),
        (
            {"progress": Progress("decoding", 2, 3, 16, 16, stage_fraction=0.4)},
            {"status": "Section 3 of 3, decoding (40 %)"},
        ),
        (
            {"stopping": True, "progress": Progress("decoding", 2, 3, 16, 16, steps_kept=True)},
            {
                "status": "Stopping soon. The steps of this section are kept. "
                "Only its decoding will be repeated."
            },
        ),
        (
            {
                "stopping": True,
                "progress": Progress("decoding", 1, 3, 16, 16, sections_done=1, steps_kept=True),
            },
            {
                "status": "Stopping soon. Kept: 1 of 3 sections, the last 1.1 s of the video, "
                "and the steps of this section. Only its decoding will be repeated."
            },
        ),
        ({"progress": Progress("saving", 2, 3, 16, 16)}, {"status": "Writing the video"}),
        (
            {"stopping": True, "progress": Progress("saving", 2, 3, 16, 16, sections_done=3)},
            {"status": "All sections are done, so the video is being saved instead of stopping."},
        ),
        *(
            (
                {"stopping": True, "progress": Progress(stage)},
                {"status": ENGLISH("live.stopping_preparing")},
            )
            for stage in (None, "prompt", "vision", "images", "transformer", "compiling")
        ),
        ({"stopping": True, "progress": Progress("sampling")}, {"status": ENGLISH("live.stopping")}),
        (
            {"stopping": True, "progress": Progress("transformer", sections=3, sections_done=2)},
            {
                "status": "Stopping as soon as the preparation is done. "
                "Keeping 2 of 3 sections, the last 2.3 s of the video."
            },
        ),
        (
            {"stopping": True, "progress": Progress("saving", 1, 3, 16, 16, sections_done=1)},
            {"status": "Stopping after this step. Keeping 1 of 3 sections, the last 1.1 s of the video."},
        ),
        ({"progress": replace(PROGRESS, seconds_left=95.0)}, {"left": "about 1 min 40 s left"}),
        ({"progress": replace(PROGRESS, seconds_left=0.0)}, {"left": "about 1 s left"}),
        ({"progress": replace(PROGRESS, seconds_left=None)}, {"left": ""}),
        ({"stopping": True}, {"stopping": True, "left": ""}),
        (
            {"stopping": True, "progress": replace(PROGRESS, sections=3, sections_done=2)},
            {"status": "Stopping after this step. Keeping 2 of 3 sections, the last 2.3 s of the video."},
        ),
        ({}, {"id": f"{1:016x}", "label": "261124_000001: Prompt 1."}),
        ({}, {"preview": f"ichi/jobs/{1:016x}/preview/3"}),
        ({"preview_number": 0}, {"preview": None}),
        ({"prompt": " \n"}, {"label": "261124_000001"}),
        ({"prompt": "A cat\n\n yawns."}, {"label": "261124_000001: A cat yawns."}),
        ({"prompt": "x" * 999}, {"label": "261124_000001: " + "x" * (SHOWN_PROMPT - 1) + "\u2026"}),
    ],
)
def test_the_running_job_is_shown_as_it_is(values, shown):
    state = state_of(view(job(1, "running", **values), ended=[done(3)]))
    assert shown.items() <= state["job"].items()
    assert state["title"] == f"{round(100 * state['job']['fraction'])}% - Endframe Ichi"


# -- unfinished jobs ---------------------------------------------------------------------------------


def unfinished(number: int, state: Any, done: int, **values: Any) -> Job:
    progress = replace(job(number, "stopped").progress, sections=4, sections_done=done)
    return job(number, state, progress=progress, can_finish=True, **values)


@pytest.mark.parametrize(
    ("done", "actions"),
    [(0, ["finish", "discard"]), (1, ["finish", "short", "discard"]), (3, ["finish", "discard"])],
)
def test_an_unfinished_job_shows_what_is_kept_and_its_actions(done, actions):
    (shown,) = state_of(view(unfinished=[unfinished(1, "interrupted", done)]))["unfinished"]
    assert (shown["actions"], shown["state_text"]) == (actions, "interrupted")
    kept = f"Kept: {done} of 4 sections, the last {(36 * done - 3) / 30:.1f} s of the video."
    assert shown["kept"] == (kept if done else "No section is finished yet.")


@pytest.mark.parametrize(
    ("done", "first"), [(0, []), (1, ["Kept: 1 of 4 sections, the last 1.1 s of the video."])]
)
def test_steps_that_are_kept_are_told(done, first):
    kept = unfinished(1, "stopped", done)
    kept = replace(kept, progress=replace(kept.progress, steps_kept=True))
    (shown,) = state_of(view(unfinished=[kept]))["unfinished"]
    told = f"The steps of section {done + 1} are kept. Only its decoding will be repeated."
    assert shown["kept"].split("\n") == [*first, told]


def test_an_unfinished_job_is_shown_once_with_its_video():
    kept = unfinished(1, "stopped", 2, video=KEPT, frames=69, ended=5.0)
    shown = state_of(view(unfinished=[kept], ended=[replace(done(2), ended=3.0)]))
    assert [item["id"] for item in shown["queue"]] == [done(2).id]
    assert [result["id"] for result in shown["results"]] == [kept.id, done(2).id]
    assert shown["unfinished"][0]["actions"][0] == "show"
    assert shown["ended"]["id"] == kept.id


# -- results -----------------------------------------------------------------------------------------


def test_results_come_newest_first_and_only_with_a_video():
    with_video = job(4, "running", video=Path("a.mp4"), frames=36)
    ended = [done(3), failed(2), failed(1, KEPT), job(5, "stopped")]
    for current, expected in ((job(4, "running"), "31"), (with_video, "431")):
        results = state_of(view(current, ended=ended))["results"]
        assert "".join(result["id"][-1] for result in results) == expected
        assert [result["complete"] for result in results] == [number == "3" for number in expected]


def test_a_longer_video_has_another_address_and_caption():
    shown = [
        state_of(view(running, ended=ended))["results"][0]
        for running, ended in (
            *((job(1, "running", video=Path("a.mp4"), frames=frames), ()) for frames in (36, 72)),
            (None, [done(1)]),
            (None, [job(1, "stopped", video=KEPT, frames=36)]),
        )
    ]
    endings = ("36.mp4?running", "72.mp4?running", "109.mp4?done", "36.mp4?stopped")
    assert [result["video"] for result in shown] == [f"ichi/jobs/{1:016x}/video/{name}" for name in endings]
    assert [result["caption"] for result in shown] == [
        "261124_000001: the last 1.2 s so far",
        "261124_000001: the last 2.4 s so far",
        "109 frames, 3.63 s, 640 × 608, seed 1, made in 1 min\n1",
        "261124_000001: unfinished, the last 1.2 s are kept",
    ]


# -- ends and failures -------------------------------------------------------------------------------


def test_the_newest_failure_stays_when_later_jobs_end_well():
    ended = [replace(done(3), ended=3.0), replace(failed(2), ended=2.0), failed(1)]
    for queue in (
        view(job(4, "running"), ended=ended),
        view(unfinished=[replace(ended[1], can_finish=True)], ended=[ended[0]]),
    ):
        can_finish = bool(queue.unfinished)
        nothing = "\n" + ENGLISH("live.unfinished_nothing") if can_finish else ""
        assert state_of(queue)["outcome"] == {
            "id": f"{2:016x}",
            "failed": True,
            "title": "261124_000002 failed.",
            "details": "Traceback <b>",
            "text": ENGLISH("error.out_of_memory") + nothing,
            "can_finish": can_finish,
            "finish": ENGLISH("live.retry"),
        }


def test_a_stopped_job_says_what_is_kept_until_another_runs_or_ends():
    stopped = replace(job(2, "stopped"), ended=2.0, can_finish=True)
    stopped = replace(stopped, progress=replace(stopped.progress, sections=3, sections_done=2))
    outcome = state_of(view(unfinished=[stopped]))["outcome"]
    assert (outcome["failed"], outcome["can_finish"]) == (False, True)
    assert outcome["finish"] == ENGLISH("live.finish")
    assert outcome["title"] == "261124_000002 was stopped."
    assert "2 of 3" in outcome["text"]
    nothing = state_of(view(ended=[replace(stopped, can_finish=False)]))["outcome"]
    assert nothing["can_finish"] is False
    assert state_of(view(job(4, "running"), unfinished=[stopped]))["outcome"] is None
    assert state_of(view(unfinished=[stopped], ended=[replace(done(3), ended=3.0)]))["outcome"] is None


def test_the_newest_end_is_announced_and_a_stop_is_no_failure():
    assert (state_of(view())["ended"], state_of(view())["title"]) == (None, "Endframe Ichi")
    for ended, good, text in (
        ([done(2), failed(1)], True, "261124_000002 is done."),
        ([job(1, "stopped")], False, "261124_000001 was stopped."),
    ):
        state = state_of(view(ended=ended))
        assert state["ended"] == {"id": ended[0].id, "good": good, "text": text}
        assert state["outcome"]["failed"] == (len(ended) == 2)


# -- the list of jobs --------------------------------------------------------------------------------


def test_the_list_is_the_running_the_waiting_and_the_ended_jobs():
    waiting = [job(6, prompt="", thumbnail=b""), job(7)]
    ended = [done(4), failed(3), failed(2, KEPT), job(1, "stopped")]
    state = state_of(view(job(5, "running", video=Path("a.mp4")), waiting, ended))
    assert [(item["id"][-1], item["state_text"], item["actions"]) for item in state["queue"]] == [
        ("5", "running", []),
        ("6", "waiting", ["edit", "remove"]),
        ("7", "waiting", ["up", "edit", "remove"]),
        ("4", "done", ["show"]),
        ("3", "failed", []),
        ("2", "failed", ["show"]),
        ("1", "stopped", []),
    ]
    shown = {item["id"] for item in state["queue"] if "show" in item["actions"]}
    assert shown <= {result["id"] for result in state["results"]}
    assert (state["queue"][1]["prompt"], state["queue"][1]["thumbnail"]) == ("(no prompt)", None)


def test_a_job_whose_video_is_gone_is_no_result_and_one_that_is_done_is_not_listed():
    kept = replace(unfinished(5, "stopped", 2, video=KEPT, frames=69), ended=1.0)
    ended = [replace(done(4), ended=3.0), replace(done(3), ended=2.0)]
    jobs = view(ended=ended, unfinished=[kept])
    state = state_of(jobs.without({ended[0].video, KEPT}))
    assert [item["id"] for item in (*state["results"], *state["queue"])] == [ended[1].id] * 2
    assert "show" not in state["unfinished"][0]["actions"]
    assert state["ended"] == state_of(jobs)["ended"], "that it is done was told, and no other end is news"
    assert jobs.without(()) == jobs


def test_a_waiting_job_with_finished_sections_cannot_be_changed():
    resumed = job(6, progress=Progress(sections=4, sections_done=2))
    assert state_of(view(None, [resumed]))["queue"][0]["actions"] == ["remove"]


def test_the_start_button_and_the_stop_button_say_what_they_do():
    views = {
        "idle": (view(), "page.start", "page.stop", False),
        "a job runs": (view(job(1, "running")), "page.start_queue", "page.stop", True),
        "one waits for the app's start": (view(None, [job(1)]), "page.start_queue", "page.stop", False),
        "one was made": (view(ended=[done(1)]), "page.start", "page.stop", False),
        "it stops": (view(job(1, "running", stopping=True)), "page.start_queue", "live.keep_going", False),
    }
    for language in LANGUAGES:
        words = Translator(language)
        for name, (jobs, start, stop, can_stop) in views.items():
            state = state_of(jobs, words)
            shown = (state["start"], state["stop"], state["can_stop"])
            assert shown == (words(start), words(stop), can_stop), name
    writing = view(job(1, "running", progress=Progress("saving", 0, 1, 16, 16, sections_done=1)))
    assert not state_of(writing)["can_stop"], "the whole video is there in a moment"
    unnoticed = replace(view(job(1, "running", stopping=True)), can_keep_going=True)
    assert state_of(unnoticed)["can_stop"]


def test_a_stop_in_the_last_step_tells_that_all_steps_are_kept_unless_it_came_before():
    progress = Progress("sampling", 0, 3, 15, 16)
    stopping = job(1, "running", stopping=True, progress=progress)
    stopping = replace(stopping, spec=replace(stopping.spec, request=replace(stopping.request, steps=16)))
    for can_keep_going, key in ((True, "live.stopping_decoding"), (False, "live.stopping")):
        shown = state_of(replace(view(stopping), can_keep_going=can_keep_going))["job"]["status"]
        assert shown == ENGLISH(key)


# -- the preflight -----------------------------------------------------------------------------------


def preflight_of(words: Translator, **values: Any) -> Any:
    return state_of(view(), words, replace(EMPTY_PREFLIGHT, **values))["setup"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_box_shows_missing_models_and_connection_errors_in_words(language, tmp_path, monkeypatch):
    gone = MachineError("cannot_write", path=str(tmp_path), reason="gone")
    words, folders = Translator(language), ModelFolders(None, tmp_path)
    models = take_inventory(folders)
    shown = preflight_of(words, folders=folders, models=models)
    assert f"{MODEL_GB} GB" in shown["title"]
    for there, size in ((26 * 10**9, MODEL_GB - 26), (10**12, 1)):
        other = preflight_of(words, folders=folders, models=replace(models, num_bytes=there))
        assert f" {size} GB" in other["title"]
        assert f" {size} GB" in other["download"]["text"]
    assert str(tmp_path) in shown["download"]["text"]
    licences = shown["download"]["licences"]
    assert licences["title"] == words("licence.title")
    assert [(item["text"], item["address"]) for item in licences["items"]] == licence_lines(words)
    monkeypatch.setattr(state_module, "free_bytes", Mock(side_effect=gone))
    assert "? GB" in preflight_of(words, folders=folders, models=models)["download"]["text"]
    fetching = DownloadView("fetching", False, 10**9, 4 * 10**9, speed=1e6, last_error="reason.ended_early")
    time = words("time.whole_minutes", minutes=50)
    amount = {"done": "1.0", "total": "4.0"}
    for download, status in (
        (replace(fetching, state="waiting"), words("download.waiting", reason=words("reason.ended_early"))),
        (replace(fetching, state="checking", file="a"), words("setup.checking", file="a")),
        (replace(fetching, is_stopping=True), words("setup.pausing")),
        (replace(fetching, speed=None), words("setup.amount", **amount)),
        (fetching, words("setup.fetching", **amount, speed="1.0", time=time)),
        (DownloadView("failed", failure=Failure("out_of_memory", {}, "")), words("error.out_of_memory")),
    ):
        shown = preflight_of(words, folders=folders, download=download, models=models)["download"]
        assert shown["status"] == status

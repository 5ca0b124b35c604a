"""The trash by a clock that is wound by hand."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

from diffusers_helper.request import GenerationRequest
from webui.eichi_utils.jobs import trash
from webui.eichi_utils.jobs.job import Job, JobSpec
from webui.eichi_utils.jobs.trash import SECONDS, Trash


def test_each_job_can_be_brought_back_for_its_own_time(monkeypatch):
    planned, now = [], 0.0
    store = Mock()
    monkeypatch.setattr(trash, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(trash.threading, "Timer", lambda seconds, _: planned.append(seconds) or Mock())
    jobs = [Job(JobSpec(name, name, Path("x"), GenerationRequest(), Path("x"))) for name in "abc"]
    thrown = Trash(store)
    for job in jobs:
        thrown.put(job)
        now += 50
    assert thrown.names == {"a", "b", "c"}
    assert thrown.take(["b"]) == [jobs[1]]
    assert thrown.take(["b"]) == []
    thrown._empty()  # a is 150 seconds old, c is 50
    assert store.delete.call_args_list == [call("a")]
    assert planned == [SECONDS, SECONDS - 50], "one timer at a time"
    assert thrown.take(["a", "c"]) == [jobs[2]]

"""The remembered speed of each machine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from webui.eichi_utils.jobs.eta import TYPICAL_DEMO, JobSize, Speed
from webui.eichi_utils.jobs.speed_history import SpeedHistory

GPU = "NVIDIA GeForce RTX 3060: models/FramePackI2V_HY"
SIZE = JobSize(steps=16, step_values=9000, decoded_values=(9000, 19000), skips_steps=True)
SPEED = Speed(30.0, computed_step=1e-4, decoding=2e-4, saving=1e-5, skipped_step=1e-6, computed_share=0.4)
OLD = {"overhead": 30, "computed_step": 1e-4, "decoding": 2e-4, "saving": 1e-5, "shares": {"0.4": 0.4}}


def of_machine(**changes: object) -> bytes:
    return json.dumps({"machines": {GPU: OLD | changes}}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "settings" / "speed.json"


def test_the_last_job_is_remembered_after_a_restart(path):
    assert SpeedHistory(path).speed(GPU) is None
    assert not path.parent.exists()
    history = SpeedHistory(path)
    for speed in (replace(SPEED, overhead=1.0), SPEED):
        history.start_eta(GPU, SIZE).learn(speed)
    again = SpeedHistory(path)
    assert (again.speed(GPU), again.speed("CPU"), again.speed(None)) == (SPEED, None, None)
    assert again.start_eta(GPU, SIZE).known == SPEED


def test_an_unknown_machine_starts_with_a_typical_speed(path):
    assert SpeedHistory(path).start_eta(GPU, SIZE, TYPICAL_DEMO).known == TYPICAL_DEMO
    assert SpeedHistory(path).start_eta(None, SIZE).learn is None


@pytest.mark.parametrize("skipped", [{}, {"skipped_step": None}, {"skipped_step": 1e-6}])
def test_a_file_of_the_version_before_is_read(path, skipped):
    path.parent.mkdir()
    path.write_bytes(of_machine(**skipped))
    step = skipped.get("skipped_step") or 0.0
    assert SpeedHistory(path).speed(GPU) == replace(SPEED, skipped_step=step, computed_share=0.5)


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"\xff", b"[" * 100_000, b"{}", b'{"machines": []}'),
        *(b'{"machines": {"a": []}}', b'{"machines": {"a": {}}}'),
        *(of_machine(overhead=-1), of_machine(computed_step=0)),
        *(of_machine(decoding="x"), of_machine(saving=[]), of_machine().replace(b"30", b"1e999")),
    ],
)
def test_a_broken_file_is_replaced_by_the_next_job(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    history = SpeedHistory(path)
    assert history.speed(GPU) is None
    history.learn(GPU, SPEED)
    assert SpeedHistory(path).speed(GPU) == SPEED


def test_a_file_that_cannot_be_written_is_no_failure(path, caplog):
    path.parent.write_text("a file stands here")
    history = SpeedHistory(path)
    history.learn(GPU, SPEED)
    assert history.speed(GPU) == SPEED
    assert "not kept" in caplog.text

"""The waits for the disk: measured in the ring, judged step by step, told once in a job."""

import time

import pytest

from diffusers_helper.streaming import disk_waits
from diffusers_helper.streaming import ring as ring_module
from diffusers_helper.streaming.disk_waits import JUDGED_STEPS, UNJUDGED_STEPS, DiskWaits
from diffusers_helper.streaming.ring import THREADS, Traffic
from tests.support.small_layers import COUNT, SmallLayers
from tests.support.tiny import run, small_request

SLOW_READ = 0.02
"""Seconds."""


class Layers:
    """Layers whose traffic a test sets."""

    traffic = Traffic()

    def wait(self, seconds: float, reading: float = 1.0) -> None:
        self.traffic = self.traffic.plus(Traffic(100, reading * THREADS, seconds))


def judged(layers: Layers, steps: int, **wait: float) -> DiskWaits:
    """The waits after some steps of one second each."""
    waits = DiskWaits(layers)
    for _ in range(steps):
        layers.wait(**wait)
        waits.add(1.0)
    return waits


def test_the_ring_counts_the_seconds_that_its_user_waits(tmp_path, monkeypatch):
    fetch, small, waits = ring_module._fetch, SmallLayers(tmp_path), []
    monkeypatch.setattr(ring_module, "_fetch", lambda *given: time.sleep(SLOW_READ) or fetch(*given))
    with small.ring(2) as ring:
        begin = time.perf_counter()
        for index in range(COUNT):
            small.take(ring, index)
        took = time.perf_counter() - begin
        assert SLOW_READ <= ring.traffic.waited <= took
        for index in range(COUNT):
            assert all(load.done.wait(10) for load in ring._loads)
            before = ring.traffic.waited
            small.take(ring, index)
            waits.append(ring.traffic.waited - before)
    assert 0 < min(waits) < SLOW_READ / 2, "layers that are there are not waited for"


def test_the_traffic_of_closed_rings_is_kept(tmp_path):
    small = SmallLayers(tmp_path)
    with small.streamed() as streamed:
        small.check_pass(streamed)
        first = streamed.ring.traffic
        streamed.close_ring()
        assert streamed.traffic >= first
        assert streamed.traffic.bytes_read >= COUNT * (5 * 33 + 5) * 4
        before = streamed.traffic.bytes_read
        small.check_pass(streamed)
        streamed.close_ring()
        assert streamed.traffic.bytes_read > before


def test_a_fraction_is_that_of_the_steps_after_the_first_ones():
    layers = Layers()
    waits = judged(layers, UNJUDGED_STEPS, seconds=1.0)
    assert waits.fraction == 0.0
    for waited in (0.5, 0.1):
        layers.wait(waited)
        waits.add(1.0)
    assert waits.fraction == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("steps", "wait", "news"),
    [
        (UNJUDGED_STEPS + JUDGED_STEPS, {"seconds": 0.25}, 0.25),
        (UNJUDGED_STEPS + JUDGED_STEPS - 1, {"seconds": 0.25}, None),
        (UNJUDGED_STEPS + JUDGED_STEPS, {"seconds": 0.1}, None),
        (UNJUDGED_STEPS + JUDGED_STEPS, {"seconds": 0.25, "reading": 0.3}, None),
    ],
    ids=["long", "too few steps", "short", "the way to the GPU"],
)
def test_only_long_waits_for_the_disk_are_told_and_once(steps, wait, news):
    waits = judged(Layers(), steps, **wait)
    assert waits.take_news() == (None if news is None else pytest.approx(news))
    assert waits.take_news() is None


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_job_whose_steps_wait_for_the_disk_says_so_once(tmp_path, monkeypatch, fraction):
    monkeypatch.setattr(disk_waits, "disk_seconds", lambda _, seconds: fraction * seconds)
    video = small_request(steps=UNJUDGED_STEPS + JUDGED_STEPS, teacache=False, seconds=1)
    told = [e.values for e in run(video, tmp_path / "out") if getattr(e, "code", "") == "waits_for_disk"]
    assert told == ([{"percent": 50}] if fraction else [])

"""The figures of a report: true values of what the engine does, as far as they can be had."""

import math
import shutil
import threading
import time
from importlib.metadata import version

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffusers_helper import report
from diffusers_helper.eight_bit.linear import quantize
from diffusers_helper.eight_bit.shard_plan import gets_eight_bits
from diffusers_helper.engine import Engine, EngineConfig
from diffusers_helper.errors import InputError, StopRequested
from diffusers_helper.events import StepDone
from diffusers_helper.measuring import steps as steps_module
from diffusers_helper.measuring.steps import MOST_STEPS, STEPS, Case, WatchedBlocks, measure_steps
from diffusers_helper.measuring.videos import psnr
from diffusers_helper.models import vram_budget
from diffusers_helper.report import Figures, PartStarted, ReportOptions, Step, measure
from diffusers_helper.sampling.denoiser import SectionDenoiser
from diffusers_helper.sampling.schedule import flow_shift_mu, flow_sigmas, sample_unipc
from diffusers_helper.streaming import ring
from diffusers_helper.weights.model_files import find_models
from tests.support.tiny import MODELS, START, make_loader, random_step, run

PARTS = (
    *("machine", "encoding", "exact_steps", "exact_videos", "eight_bit_steps", "eight_bit_video"),
    "memory",
)


class Report:
    """A whole report on the tiny models, with what went through the engine meanwhile."""

    def __init__(self, folder, **options):
        self.folder = folder
        files = find_models(MODELS)
        self.config = EngineConfig(files, folder / "app", "cpu", None, (folder / "eight_bit",))
        self.options = ReportOptions(START, 64, folder / "work", **options)
        self.stop = threading.Event()
        self.events, self.videos, self.cases = [], [], []

    def figures(self):
        return {event.part: event.values for event in self.events if isinstance(event, Figures)}

    def make(self):
        for event in measure(self.config, self.options, self.stop):
            self.events.append(event)
            yield event


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = Report(tmp_path_factory.mktemp("report"), makes_eight_bit=True)
    video, steps = report.make_video, report.measure_steps

    def keep_video(*arguments):
        frames = yield from video(*arguments)
        made.videos.append(frames)
        return frames

    def keep_case(*arguments):
        made.cases.append(arguments[1])
        return (yield from steps(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "make_video", keep_video)
        patch.setattr(report, "measure_steps", keep_case)
        list(made.make())
    return made


@pytest.fixture
def interrupted(tmp_path):
    """A report that is stopped at the first step."""
    made = Report(tmp_path)
    for event in made.make():
        if isinstance(event, Step):
            made.stop.set()
    return made


def test_all_parts_are_there_in_order_and_none_has_failed(whole):
    started = [event for event in whole.events if isinstance(event, PartStarted)]
    assert [event.part for event in started] == [*PARTS] == [*whole.figures()]
    assert [(event.number, event.parts) for event in started] == [(n, 7) for n in range(1, 8)]
    assert "failed" not in str(whole.events)


def test_the_machine_and_its_memory_are_described(whole):
    machine, memory = whole.figures()["machine"], whole.figures()["memory"]
    assert machine["versions"]["torch"] == version("torch")
    assert machine["versions"]["CUDA of torch"] == str(torch.version.cuda)
    assert machine["device"].startswith("CPU")
    assert machine["transformer in"] == "float32"
    assert 0.2 < memory["process at most GiB"] < memory["RAM GiB"]
    assert memory["RAM free GiB"] <= memory["RAM GiB"]


def test_a_way_that_cannot_run_says_why(whole):
    reason = "a CPU runs the blocks as they are"
    assert whole.figures()["machine"]["blocks are compiled"] == reason
    for part in ("exact_steps", "eight_bit_steps"):
        assert whole.figures()[part]["compiled"] == {"not measured": reason}


def test_steps_are_counted_and_timed(whole):
    for part in ("exact_steps", "eight_bit_steps"):
        way = whole.figures()[part]["not compiled"]
        assert way["is finite"]
        assert len(way["seconds a step"]) == len(way["GB read a step"]) == MOST_STEPS
        assert min(way["seconds a step"]) > 0
    assert whole.figures()["exact_steps"]["not compiled"]["error of the first step"] == 0
    assert 0 < whole.figures()["eight_bit_steps"]["not compiled"]["error of the first step"] < 0.02


def test_the_largest_activations_are_those_that_a_hook_sees(whole):
    loader, case = Engine(whole.config).load(whole.config.models), whole.cases[0]
    seen: dict[int, list[torch.Tensor]] = {}
    with loader.transformer(case.tokens) as transformer:
        layers = transformer.stack.layers
        for index, block in layers._resident.items():
            block.register_forward_hook(
                lambda _, __, out, index=index: seen.setdefault(index, []).append(out)
            )
        sigmas = flow_sigmas(STEPS, flow_shift_mu(case.noise.shape))
        denoiser = SectionDenoiser(transformer, case.inputs, loader.compute, sigmas[:-1])
        for _, _latents in zip(
            range(MOST_STEPS), sample_unipc(denoiser.predict, case.noise, sigmas), strict=False
        ):
            pass
        kinds = [layer.kind for layer in layers.layers]
    figures = whole.figures()["exact_steps"]["largest |x| behind a block, latents and text"]
    assert [*figures] == ["double 0", "double 1", "single 0", "single 1", "single 2"]
    assert kinds == [name.split()[0] for name in figures]
    for index, figure in enumerate(figures.values()):
        outputs = seen[index][:MOST_STEPS]
        wanted = [max(float(out[stream].abs().max()) for out in outputs) for stream in (0, 1)]
        assert figure == pytest.approx(wanted, rel=1e-4)


def test_the_largest_row_scale_is_that_of_the_weights(whole):
    checkpoint, scales = whole.config.models.transformer.checkpoint, {}
    for path in checkpoint.signatures:
        for name, weight in load_file(path).items():
            if gets_eight_bits(name, checkpoint.tensors[name]):
                scales[name.removesuffix("weight") + "scale"] = float(quantize(weight.float())[1].max())
    largest = max(scales, key=scales.get)
    assert whole.figures()["eight_bit_steps"]["largest row scale"] == pytest.approx(
        {largest: scales[largest]}
    )


@pytest.mark.parametrize("threshold", [0.15, 0.40])
def test_teacaches_decisions_are_those_of_a_job(whole, tmp_path, threshold):
    figures = whole.figures()["exact_videos"]
    assert figures["TeaCache off"]["steps"] == "x" * STEPS
    values = {"teacache": True, "teacache_threshold": threshold}
    request = report._Measuring(whole.config, whole.options, whole.stop)._make_request(64, threshold)
    assert {key: request.to_dict()[key] for key in values} == values
    steps = [event.computed for event in run(request, tmp_path / "out") if isinstance(event, StepDone)]
    video = figures[f"TeaCache {threshold:.2f}"]
    assert video["steps"] == "".join("x" if computed else "." for computed in steps)
    assert video["steps computed"] == sum(steps) < STEPS


def test_psnr_is_that_of_the_frames(whole):
    exact, *others, eight_bit = [frames.astype(np.float64) for frames in whole.videos]
    assert exact.shape[0] == 37
    videos = [*whole.figures()["exact_videos"].values()][1:]
    figures = [video["PSNR to the exact video"] for video in (*videos, whole.figures()["eight_bit_video"])]
    for figure, frames in zip(figures, (*others, eight_bit), strict=True):
        assert figure == pytest.approx(
            20 * math.log10(255 / np.sqrt(((frames - exact) ** 2).mean())), abs=0.01
        )
        assert 20 < figure < 90
    assert psnr(whole.videos[0], whole.videos[0]) == math.inf


def test_streamed_weights_are_counted_and_what_steps_wait_for_them(monkeypatch):
    fetch = ring._fetch
    monkeypatch.setattr(ring, "_fetch", lambda *given: time.sleep(0.05) or fetch(*given))
    monkeypatch.setattr(vram_budget, "plan_vram", lambda *_: [])
    loader, case, values = make_loader(), Case(*random_step()), {}
    with loader.transformer(case.tokens) as transformer:
        steps = measure_steps(transformer, case, loader.compute, lambda: None, values, fewest=1)
        layers = transformer.stack.layers
        assert len(list(steps)) == MOST_STEPS
        cycle = sum(tensor.stored.num_bytes for layer in layers.layers for tensor in layer.tensors) / 1e9
    read, waited = sum(values["GB read a step"]), values["seconds waited for weights"]
    assert MOST_STEPS * cycle - 1e-5 <= read <= (MOST_STEPS + 1) * cycle
    assert 0 < values["GB/s while reading"] < 1000
    assert len(waited) == MOST_STEPS
    assert sum(waited) > 0
    for disk, all_waits, seconds in zip(
        values["of these for the disk"], waited, values["seconds a step"], strict=True
    ):
        assert 0 <= disk <= all_waits + 1e-3
        assert 0 <= all_waits <= seconds + 1e-3


def test_slow_ways_have_fewer_steps(monkeypatch):
    monkeypatch.setattr(steps_module, "WAY_SECONDS", 0.0)
    loader, case = make_loader(), Case(*random_step())
    with loader.transformer(case.tokens) as transformer:
        for fewest in (1, 3):
            steps = measure_steps(transformer, case, loader.compute, lambda: None, {}, fewest)
            assert len(list(steps)) == fewest


def test_numbers_of_a_step_that_was_repeated_do_not_count():
    watched = WatchedBlocks(["double", "single"])
    block = torch.nn.Identity()
    block.forward = lambda hidden, text: (hidden, text)
    for value in (9.0, -1.0, 2.0):  # broken off after the first block, and repeated
        watched(block, torch.full((1, 2), value), torch.full((1, 3), -value / 2))
    watched.end_step()
    assert watched.largest() == {"double 0": [0, 0], "single 0": [0, 0]}
    for value in (-3.0, float("nan")):
        watched(block, torch.full((1, 2), value), torch.full((1, 3), value))
    watched.end_step()
    assert watched.largest()["double 0"] == [3, 3]
    assert math.isnan(watched.largest()["single 0"][0])


def test_nothing_is_left_behind_but_the_eight_bit_weights(whole):
    assert not (whole.folder / "work" / "job").exists()
    assert [path.name for path in (whole.folder / "eight_bit").iterdir()] == ["lllyasviel"]
    assert not list((whole.folder / "app").rglob("*.safetensors")), "prompts are not kept in the app's cache"


def test_a_stop_keeps_the_figures_until_then(interrupted):
    assert [*interrupted.figures()] == [*PARTS[:3]]
    way = interrupted.figures()["exact_steps"]["not compiled"]
    assert len(way["seconds a step"]) == 1


def test_what_fails_is_a_figure_and_the_rest_goes_on(tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("too little\nmemory")
        yield

    for name in ("encode_all", "make_video"):
        monkeypatch.setattr(report, name, fail)
    made = Report(tmp_path)
    list(made.make())
    figures, reason = made.figures(), "OutOfMemoryError: too little"
    assert figures["encoding"]["failed"] == reason
    assert figures["exact_steps"] == {"not measured": "prompt and picture could not be encoded"}
    assert {video["failed"] for video in figures["exact_videos"].values()} == {reason}
    assert figures["eight_bit_steps"]["not measured"].startswith(
        "there are no 8-bit weights; --eight-bit makes"
    )
    assert figures["eight_bit_video"] == {"not measured": "there are no 8-bit weights"}
    assert figures["memory"]["RAM GiB"] > 0
    assert not (tmp_path / "eight_bit").exists()


def test_a_machine_that_the_engine_refuses_is_described_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("no_cuda")

    monkeypatch.setattr(report, "Engine", refuse)
    made = Report(tmp_path)
    list(made.make())
    assert made.figures()["machine"]["versions"]["torch"] == version("torch")
    assert made.figures()["machine"]["failed"] == "InputError: no_cuda"
    assert made.figures()["exact_steps"] == {"not measured": "the engine cannot use this machine"}
    assert made.figures()["memory"]["RAM GiB"] > 0


@pytest.mark.parametrize(("seconds", "resolution"), [(0.9, 640), (5.0, 480), (12.0, 320), (30.0, 256)])
def test_videos_are_smaller_where_steps_are_slow(tmp_path, seconds, resolution):
    options = ReportOptions(START, 640, tmp_path)
    measuring = report._Measuring(EngineConfig(find_models(MODELS), tmp_path), options, threading.Event())
    measuring._step_seconds = seconds
    assert measuring._choose_resolution() == resolution


def test_a_stopped_video_stops_the_report(tmp_path):
    made = Report(tmp_path)
    made.stop.set()
    work = report._Measuring(made.config, made.options, made.stop)
    work._engine = Engine(made.config)
    with pytest.raises(StopRequested):
        list(work._video(work._request, work.engine.load(made.config.models), {}))
    shutil.rmtree(tmp_path / "work", ignore_errors=True)

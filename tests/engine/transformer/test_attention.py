"""The choice of an attention backend: the first that works, in a fixed order."""

import contextlib
import importlib.util
import types

import pytest
import torch
from torch.nn.attention import SDPBackend

from diffusers_helper.events import Notice
from diffusers_helper.transformer import attention
from diffusers_helper.transformer.compiling import CompiledBlocks
from tests.support.tiny import make_loader, make_request, run
from webui.eichi_utils.text.translations import Translator
from webui.endframe_ichi import parse_arguments


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as the chooser sees it, with all backends; a test may change their factors of error.

    Attributes:
        factors: of each backend that works, the factor of its numbers.
        native: the backend that PyTorch takes by itself.
        tried: the backends that computed something.
    """
    names = ("native", "sage", *attention.CANDIDATES)
    gpu = types.SimpleNamespace(factors=dict.fromkeys(names, 1.0), native=SDPBackend.MATH, tried=[])

    def attend(states, backend):
        gpu.tried.append(backend)
        if backend not in gpu.factors:
            raise RuntimeError(f"No available kernel for {backend}")
        return states[2] * gpu.factors[backend]

    generator, randn = torch.Generator, torch.randn
    monkeypatch.setattr(attention, "attend", attend)
    monkeypatch.setattr(torch, "Generator", lambda _device: generator("cpu"))
    monkeypatch.setattr(torch, "randn", lambda size, **_: randn(size))
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: gpu.native.value)
    return gpu


def chooser(**options):
    return attention.AttentionChooser(torch.device("cuda"), torch.bfloat16, **options)


def choose(**options):
    return chooser(**options).choose(2, 16)


def out_of_memory(*_arguments, **_options):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_cpu_uses_pytorchs_own_attention():
    assert attention.AttentionChooser(torch.device("cpu"), torch.float32).choose(2, 16) is None


def test_backends_are_taken_in_a_fixed_order(gpu):
    for name in ("_native_cudnn", "_native_flash", "xformers", "_native_efficient", None):
        assert choose() == name
        gpu.factors.pop(name, None)


@pytest.mark.parametrize(
    ("native", "chosen"),
    [
        (SDPBackend.CUDNN_ATTENTION, None),
        (SDPBackend.FLASH_ATTENTION, "_native_cudnn"),
        (SDPBackend.EFFICIENT_ATTENTION, "_native_cudnn"),
    ],
)
def test_a_backend_that_pytorch_takes_by_itself_is_left_to_it(gpu, native, chosen):
    gpu.native = native
    assert choose() == chosen
    del gpu.factors["_native_cudnn"], gpu.factors["_native_flash"], gpu.factors["xformers"]
    assert choose() is None


def test_compiled_blocks_do_without_xformers(gpu):
    del gpu.factors["_native_cudnn"], gpu.factors["_native_flash"]
    assert choose() == "xformers"
    assert choose(compiles=True) == "_native_efficient"


@pytest.mark.parametrize("factor", [1.03, torch.nan])
def test_a_backend_with_wrong_numbers_is_not_used(gpu, factor):
    gpu.factors["_native_cudnn"] = factor
    assert choose() == "_native_flash"


def test_each_backend_is_tried_once(gpu):
    del gpu.factors["_native_cudnn"]
    one = chooser()
    assert [one.choose(2, 16) for _ in range(3)] == ["_native_flash"] * 3
    assert (gpu.tried.count("_native_cudnn"), gpu.tried.count("_native_flash")) == (1, 1)


@pytest.mark.parametrize("place", [attention, torch])
def test_without_memory_to_try_pytorchs_own_is_used_this_time(gpu, monkeypatch, place):  # noqa: ARG001
    one = chooser(requested=attention.SAGE)
    with monkeypatch.context() as patch:
        patch.setattr(place, "attend" if place is attention else "randn", out_of_memory)
        assert one.choose(2, 16) is None
    assert one.choose(2, 16) == "sage"


def test_an_excluded_backend_is_not_chosen_again(gpu):  # noqa: ARG001
    one = chooser(requested=attention.SAGE)
    for name in ("sage", "_native_cudnn"):
        assert one.choose(2, 16) == name
        one.exclude(name)
    assert one.choose(2, 16) == "_native_flash"


@pytest.mark.parametrize(
    ("requested", "factor", "chosen"),
    [("sage", 1.08, "sage"), ("sage", 1.2, "_native_cudnn"), (None, 1, "_native_cudnn")],
)
def test_sage_attention_is_used_on_request_and_may_round(gpu, requested, factor, chosen):
    gpu.factors["sage"] = factor
    assert choose(requested=requested) == chosen
    assert ("sage" in gpu.tried) is (requested is not None)


@pytest.mark.parametrize(
    ("requested", "notices"), [("sage", ["attention_refused"]), (None, []), ("native", [])]
)
def test_a_job_reports_that_the_requested_attention_is_not_used(tmp_path, requested, notices):
    loader = make_loader()
    loader._attention.requested = requested
    events = run(make_request(), tmp_path, loader=loader)
    assert [event.code for event in events if isinstance(event, Notice)] == notices


def test_only_blocks_with_sage_attention_are_not_compiled():
    """A compiler cannot look into it, and would be disabled for all."""
    loader = make_loader()
    loader._runner = CompiledBlocks("eager")
    for chosen, compiles in ((attention.SAGE, False), (None, True)):
        loader._attention.choose = lambda *_, chosen=chosen: chosen
        with contextlib.ExitStack() as exits:
            if chosen is not None:  # the package is not there
                patch = exits.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(attention.ActiveAttention, "_enter", lambda _self: None)
            transformer = exits.enter_context(loader.transformer(500))
            assert isinstance(transformer.stack.runner, CompiledBlocks) is compiles
            assert transformer.is_prepared is not compiles


@pytest.mark.parametrize("lang", ["en", "ja", "zh-tw"])
def test_the_command_line_reports_a_missing_sage_attention(monkeypatch, capsys, lang):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sageattention" else find_spec(name)
    )
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--sage-attention", "--lang", lang])
    assert end.value.code == 2
    assert Translator(lang)("cli.sage_attention_missing") in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    assert parse_arguments(["--sage-attention"]).sage_attention


def test_attention_backends_agree():
    states = list(torch.randn(3, 1, 40, 2, 16))
    transposed = (state.transpose(1, 2) for state in states)
    wanted = torch.nn.functional.scaled_dot_product_attention(*transposed).transpose(1, 2)
    for backend in ("native", "_native_math"):
        assert torch.allclose(attention.attend(states, backend), wanted, atol=1e-5)


def test_xformers_must_be_there_and_right(gpu):
    def works():
        return attention.xformers_computes(torch.device("cpu"), torch.float32)

    assert works()
    gpu.factors["xformers"] = 1.1
    assert not works()
    del gpu.factors["xformers"]
    assert not works()

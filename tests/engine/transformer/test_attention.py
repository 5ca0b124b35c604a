"""Ways to compute attention: which one is taken, and an xformers in any state of repair."""

import contextlib
import importlib.metadata
import importlib.util
import json
import types

import pytest
import torch

from diffusers_helper.events import Notice
from diffusers_helper.transformer import attention
from diffusers_helper.transformer.compiling import CompiledBlocks
from tests.support.tiny import make_loader, make_request, run
from webui.eichi_utils.text.translations import Translator
from webui.endframe_ichi import parse_arguments

SHAPE = attention.AttentionShape(18000, 24, 128)


@pytest.fixture
def card(monkeypatch):
    """A card as far as the chooser looks at it; returns the seconds of each way, which a test may change."""
    ways = {"native": 1.0, "_native_cudnn": 0.6, "_native_flash": 0.9, "xformers": 0.5}
    tried = []

    def attend(_states, backend):
        if backend not in ways:
            raise RuntimeError(f"No available kernel for {backend}")
        return torch.ones(1) * wrong.get(backend, 1.0)

    def seconds(_states, backend):
        tried.append(backend)
        return ways[backend]

    wrong: dict[str, float] = {}
    monkeypatch.setattr(attention, "attend", attend)
    monkeypatch.setattr(attention, "_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "A card")
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda _device: generator("cpu"))
    monkeypatch.setattr(torch, "randn", lambda *_size, **_values: torch.ones(1))
    return types.SimpleNamespace(ways=ways, tried=tried, wrong=wrong)


def chooser(path=None, **values):
    return attention.AttentionChooser(torch.device("cuda"), torch.bfloat16, path=path, **values)


def test_the_cpu_keeps_its_own_attention():
    own = attention.AttentionChooser(torch.device("cpu"), torch.float32)
    assert own.choose(SHAPE) is None


def test_the_fastest_attention_is_taken(card):
    assert chooser().choose(SHAPE) == "xformers"
    del card.ways["xformers"]
    assert chooser().choose(SHAPE) == "_native_cudnn"


def test_compiled_blocks_do_without_xformers(card):
    assert chooser(compiles=True).choose(SHAPE) == "_native_cudnn"
    assert "xformers" not in card.tried


def test_what_is_hardly_faster_than_pytorchs_own_is_not_taken(card):
    card.ways.clear()
    card.ways.update({"native": 1.0, "_native_flash": 0.97})
    assert chooser().choose(SHAPE) is None


def test_an_attention_with_other_numbers_is_not_taken(card):
    card.wrong.update({"xformers": 1.2, "_native_cudnn": 1.03})
    assert chooser().choose(SHAPE) == "_native_flash"


def test_each_shape_is_tried_once_also_after_a_new_start(card, tmp_path):
    path = tmp_path / "new" / "attention.json"
    first = chooser(path)
    assert first.choose(SHAPE) == "xformers"
    tries = len(card.tried)
    near = attention.AttentionShape(SHAPE.tokens + 100, SHAPE.heads, SHAPE.head_dim)
    card.ways["_native_flash"] = 0.1  # would be chosen now
    assert [each.choose(s) for each in (first, chooser(path)) for s in (SHAPE, near)] == ["xformers"] * 4
    assert len(card.tried) == tries
    far = attention.AttentionShape(2 * SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    assert chooser(path).choose(far) == "_native_flash"


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "\udcff"])
def test_a_file_that_is_none_of_ours_is_written_anew(card, tmp_path, content):
    path = tmp_path / "attention.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert chooser(path).choose(SHAPE) == "xformers"
    card.ways["_native_flash"] = 0.1
    assert chooser(path).choose(SHAPE) == "xformers"


@pytest.mark.usefixtures("card")
def test_a_remembered_way_that_is_no_longer_there_is_not_used(tmp_path):
    path = tmp_path / "attention.json"
    assert chooser(path).choose(SHAPE) == "xformers"
    assert chooser(path, compiles=True).choose(SHAPE) == "_native_cudnn"


@pytest.mark.parametrize("trouble", ["gone", "wrong"])
def test_a_remembered_way_that_has_stopped_working_is_forgotten(card, tmp_path, trouble):
    path = tmp_path / "attention.json"
    running = chooser(path)
    assert running.choose(SHAPE) == "xformers"
    if trouble == "gone":
        del card.ways["xformers"]
    else:
        card.wrong["xformers"] = 1.05
    assert running.choose(SHAPE) == "xformers"  # it was tried in this process
    for _ in range(2):
        assert chooser(path).choose(SHAPE) == "_native_cudnn"
    assert "xformers" not in json.loads(path.read_text()).values()


def test_a_remembered_way_is_kept_when_there_is_no_memory_to_try_it(card, tmp_path, monkeypatch):
    path = tmp_path / "attention.json"
    assert chooser(path).choose(SHAPE) == "xformers"
    original = attention.attend

    def attend(states, name):
        return out_of_memory() if name == "xformers" else original(states, name)

    for place, replaced in ((attention, ("attend", attend)), (torch, ("randn", out_of_memory))):
        with monkeypatch.context() as patch:
            patch.setattr(place, *replaced)
            assert chooser(path).choose(SHAPE) is None
    tries = len(card.tried)
    assert chooser(path).choose(SHAPE) == "xformers"
    assert len(card.tried) == tries


def test_another_xformers_has_all_ways_tried_again(card, tmp_path, monkeypatch):
    path = tmp_path / "attention.json"
    del card.ways["xformers"]
    assert chooser(path).choose(SHAPE) == "_native_cudnn"
    card.ways["xformers"] = 0.5
    assert chooser(path).choose(SHAPE) == "_native_cudnn"
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "99.0")
    assert chooser(path).choose(SHAPE) == "xformers"


@pytest.mark.parametrize("what", ["card", "torch", "dtype", "heads"])
def test_what_a_choice_may_hang_on_has_all_ways_tried_again(card, tmp_path, monkeypatch, what):
    path = tmp_path / "attention.json"
    assert chooser(path).choose(SHAPE) == "xformers"
    card.ways["_native_flash"] = 0.1
    dtype, shape = torch.bfloat16, SHAPE
    if what == "card":
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Another card")
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    elif what == "dtype":
        dtype = torch.float16
    else:
        shape = attention.AttentionShape(SHAPE.tokens, 12, SHAPE.head_dim)
    other = attention.AttentionChooser(torch.device("cuda"), dtype, path=path)
    assert other.choose(shape) == "_native_flash"


def test_a_refused_way_is_not_chosen_again(card, tmp_path):
    path = tmp_path / "attention.json"
    first = chooser(path, requested=attention.SAGE)
    card.ways["sage"] = 0.1
    assert first.choose(SHAPE) == "sage"
    first.exclude("sage")
    assert first.choose(SHAPE) == "xformers"
    first.exclude("xformers")
    assert "xformers" not in json.loads(path.read_text()).values()
    assert first.choose(SHAPE) == "_native_cudnn"


def test_without_memory_to_try_pytorchs_own_is_used_this_time(card, tmp_path, monkeypatch):
    path = tmp_path / "attention.json"

    def attend(_states, _backend):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(attention, "attend", attend)
        assert chooser(path).choose(SHAPE) is None
    assert not card.tried
    assert chooser(path).choose(SHAPE) == "xformers"


@pytest.mark.usefixtures("card")
def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path):
    (tmp_path / "file").write_text("")
    assert chooser(tmp_path / "file" / "attention.json").choose(SHAPE) == "xformers"


def out_of_memory(*_size, **_values):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_sage_attention_is_not_taken_by_itself(card):
    card.ways["sage"] = 0.1
    assert chooser().choose(SHAPE) == "xformers"
    assert "sage" not in card.tried


def test_sage_attention_is_taken_where_it_is_asked_for(card, tmp_path):
    card.ways["sage"], card.wrong["sage"] = 2.0, 1.08  # it may round
    path = tmp_path / "attention.json"
    assert chooser(path, requested=attention.SAGE).choose(SHAPE) == "sage"
    assert not path.exists()  # who no longer asks for it gets another
    assert chooser(path).choose(SHAPE) == "xformers"


@pytest.mark.parametrize("trouble", ["wrong", "missing", "not a number"])
def test_where_sage_attention_does_not_work_the_fastest_other_is_taken(card, monkeypatch, trouble):
    if trouble != "missing":
        card.ways["sage"] = 2.0
    if trouble == "wrong":
        card.wrong["sage"] = 1.2
    if trouble == "not a number":
        original = attention.attend
        monkeypatch.setattr(
            attention,
            "attend",
            lambda states, name: original(states, name) * (torch.nan if name == "sage" else 1),
        )
    assert chooser(requested=attention.SAGE).choose(SHAPE) == "xformers"


@pytest.mark.parametrize(
    ("requested", "notices"), [("sage", ["attention_refused"]), (None, []), ("native", [])]
)
def test_a_job_tells_that_the_attention_asked_for_is_not_used(tmp_path, requested, notices):
    loader = make_loader()
    loader._attention.requested = requested
    events = run(make_request(), tmp_path, loader=loader)
    assert [event.code for event in events if isinstance(event, Notice)] == notices


def test_blocks_with_sage_attention_are_not_compiled_and_others_still_are():
    """A compiler cannot look into it, and would be given up for all."""
    loader = make_loader()
    loader._runner = CompiledBlocks("eager")
    for chosen, compiles in ((attention.SAGE, False), (None, True)):
        loader._attention.choose = lambda _shape, chosen=chosen: chosen
        with contextlib.ExitStack() as exits:
            if chosen is not None:  # the package is not there
                patch = exits.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(attention.ActiveAttention, "_enter", lambda _self: None)
            transformer = exits.enter_context(loader.transformer(500))
            assert isinstance(transformer.stack.runner, CompiledBlocks) is compiles
            assert transformer.is_prepared is not compiles


def test_no_memory_for_trying_sage_attention_is_no_end_of_the_job(card, monkeypatch):
    card.ways["sage"] = 2.0
    monkeypatch.setattr(torch, "randn", out_of_memory)
    assert chooser(requested=attention.SAGE).choose(SHAPE) is None


@pytest.mark.parametrize("lang", ["en", "ja", "zh-tw"])
def test_the_command_line_says_that_sage_attention_is_not_installed(monkeypatch, capsys, lang):
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


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_ways_of_attention_agree(backend):
    query, key, value = torch.randn(3, 1, 40, 2, 16).unbind()
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(state.transpose(1, 2) for state in (query, key, value))
    ).transpose(1, 2)
    assert torch.allclose(attention.attend([query, key, value], backend), wanted, atol=1e-5)


@pytest.mark.parametrize("works", [True, False])
def test_xformers_must_compute_something_right(monkeypatch, works):
    def attend(states, backend):
        assert backend == "xformers"
        if not works:
            raise NotImplementedError("no kernel for this card")
        return states[2].clone()

    monkeypatch.setattr(attention, "attend", attend)
    assert attention.xformers_computes(torch.device("cpu"), torch.float32) is works

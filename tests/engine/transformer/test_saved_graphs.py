"""Compiled blocks outlive the process; what is damaged or of another machine is not used."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from diffusers_helper.transformer import saved_graphs
from diffusers_helper.transformer.compiling import CompiledBlocks
from diffusers_helper.transformer.saved_graphs import SavedGraphs, _key


class Block(nn.Module):
    """A block for a runner: two states in, two out, the width left open."""

    def __init__(self, width=4):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, hidden, text):
        return self.linear(hidden) + text.sum(1, keepdim=True), text


def states(count=7, width=4):
    torch.manual_seed(0)
    return torch.randn(1, count, width), torch.randn(1, 5, width)


class Graphs:
    """Files of graphs as the compiler writes and reads them, without a compiler."""

    def __init__(self, monkeypatch):
        self.made = self.read = 0
        self.refuses = False
        monkeypatch.setattr(torch, "compile", self.compile)
        monkeypatch.setattr(torch.compiler, "load_compiled_function", self.load)

    def compile(self, function, **_):
        def aot_compile(_arguments):
            self.made += 1
            graph = Mock(side_effect=function)
            graph.save_compiled_function = lambda path: Path(path).write_bytes(b"graph")
            return graph

        return Mock(side_effect=function, aot_compile=aot_compile)

    def load(self, file):
        assert file.read().startswith(b"graph")
        self.read += 1
        if self.refuses:
            raise RuntimeError("of another version")
        return lambda block, *arguments: block(*arguments)


@pytest.fixture
def graphs(monkeypatch):
    return Graphs(monkeypatch)


def prepared(folder, block=None, attention="native"):
    """A runner at a start of the app that has compiled one block."""
    runner, block = CompiledBlocks(saved=SavedGraphs(folder)), block or Block()
    with torch.inference_mode():
        runner.prepare([block], states(), attention)
    assert runner.is_compiling
    return runner


def test_the_second_start_reads_what_the_first_has_made(tmp_path, graphs):
    for start in range(3):
        runner = prepared(tmp_path)
        assert (graphs.made, graphs.read) == (1, start)
        assert runner._compiled is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".graph"]


@pytest.mark.parametrize("change", ["attention", "shape", "dtype", "torch", "code", "product"])
def test_another_machine_version_or_model_has_a_graph_of_its_own(tmp_path, monkeypatch, change):
    block, arguments = Block(), states()
    before = _key(block, arguments, "native")
    assert _key(Block(), states(9), "native") == before, "neither weights nor the number of tokens count"
    if change == "shape":
        block = Block(8)
    elif change == "dtype":
        block, arguments = block.half(), [each.half() for each in arguments]
    elif change == "torch":
        monkeypatch.setattr(saved_graphs, "installed_versions", lambda _: {"torch": "99"})
    elif change == "code":
        (tmp_path / "transformer").mkdir()
        (tmp_path / "transformer" / "new.py").write_text("")
        monkeypatch.setattr(saved_graphs, "ENGINE", tmp_path)
    elif change == "product":
        block.linear.product = prepared
    assert _key(block, arguments, "xformers" if change == "attention" else "native") != before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder"])
def test_a_damaged_file_is_made_again(tmp_path, graphs, damage):
    prepared(tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": content[:-1], "flipped": b"G" + content[1:], "empty": b""}[damage])
    runner = prepared(tmp_path)
    assert (graphs.made, graphs.read) == (2, 0)
    assert len(runner._graphs) == 1


@pytest.mark.usefixtures("graphs")
def test_a_file_that_pytorch_refuses_is_made_again(tmp_path, graphs):
    prepared(tmp_path)
    graphs.refuses = True
    assert len(prepared(tmp_path)._graphs) == 1
    assert (graphs.made, graphs.read) == (2, 1)


@pytest.mark.usefixtures("graphs")
def test_a_graph_that_fails_gives_way_to_the_compiler(tmp_path, monkeypatch):
    runner, block = prepared(tmp_path), Block()
    compiled = Mock(side_effect=lambda block, *arguments: block(*arguments))
    monkeypatch.setattr(torch, "compile", lambda *_, **__: compiled)
    runner._graphs = dict.fromkeys(
        runner._graphs, Mock(side_effect=RuntimeError("GuardManager check failed"))
    )
    with torch.inference_mode():
        found, wanted = runner(block, *states(), attention="native"), block(*states())
    assert torch.equal(found[0], wanted[0])
    assert runner._graphs == {}
    assert compiled.call_count == 1
    assert runner.is_compiling


@pytest.mark.usefixtures("graphs")
def test_short_memory_is_reported_and_loses_no_graph(tmp_path):
    runner = prepared(tmp_path)
    short = dict.fromkeys(runner._graphs, Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
    runner._graphs = dict(short)
    with pytest.raises(torch.OutOfMemoryError):
        runner(Block(), *states(), attention="native")
    assert runner._graphs == short


@pytest.mark.usefixtures("graphs")
def test_another_attention_does_not_use_the_graph(tmp_path):
    runner = prepared(tmp_path)
    graph = Mock(side_effect=AssertionError("of another attention"))
    runner._graphs = dict.fromkeys(runner._graphs, graph)
    runner._compiled = lambda block, *arguments: block(*arguments)
    runner(Block(), *states(), attention="xformers")
    assert not graph.called


@pytest.mark.usefixtures("graphs")
def test_a_folder_that_cannot_be_written_costs_only_the_file(tmp_path):
    (tmp_path / "taken").write_text("")
    assert len(prepared(tmp_path / "taken")._graphs) == 1


def test_what_cannot_be_made_ahead_of_time_is_compiled_when_called(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", Mock(return_value=Mock(spec=[], side_effect=Block.__call__)))
    runner = prepared(tmp_path)
    assert runner._graphs == {}
    assert runner._compiled is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_a_real_graph_is_kept_and_serves_any_number_of_tokens(tmp_path, monkeypatch):
    torch._dynamo.reset()
    for start in range(2):
        runner, block = prepared(tmp_path), Block()
        assert len(runner._graphs) == len(list(tmp_path.iterdir())) == 1
        with torch.inference_mode():
            for count in (7, 30):
                found, wanted = runner(block, *states(count), attention="native"), block(*states(count))
                assert torch.allclose(found[0], wanted[0], atol=1e-6)
        assert len(runner._graphs) == 1, "the graph served"
        monkeypatch.setattr(torch, "compile", Mock(side_effect=AssertionError(f"traced at start {start}")))

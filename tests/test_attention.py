"""An xformers in any state of repair."""

import sys
import types

import pytest
import torch

from diffusers_helper import attention


@pytest.fixture
def broken_xformers(tmp_path, monkeypatch):
    """A package that is installed and fails when it is imported, as after a change of PyTorch."""
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").write_text("")
    (tmp_path / "xformers" / "ops.py").write_text("raise OSError('DLL load failed')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("xformers", "xformers.ops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("xformers", "xformers.ops"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("broken_xformers")
def test_a_broken_xformers_looks_absent():
    attention.hide_broken_xformers()
    with pytest.raises(ImportError):
        import xformers.ops  # noqa: F401
    attention.hide_broken_xformers()  # a second time changes nothing


def test_the_cpu_keeps_its_own_attention():
    assert attention.choose_attention(torch.device("cpu"), torch.float32) is None


def test_a_card_with_flash_attention_does_not_ask_xformers(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(attention, "_xformers_computes", lambda *_: pytest.fail("asked"))
    assert attention.choose_attention(torch.device("cuda"), torch.bfloat16) is None


@pytest.mark.parametrize("works", [True, False])
def test_without_flash_attention_xformers_is_taken_only_if_it_computes(monkeypatch, works):
    def compute(_query, _key, value):
        if not works:
            raise NotImplementedError("no kernel for this card")
        return value.clone()

    fake = types.ModuleType("xformers.ops")
    fake.memory_efficient_attention = compute
    monkeypatch.setitem(sys.modules, "xformers", types.ModuleType("xformers"))
    monkeypatch.setitem(sys.modules, "xformers.ops", fake)
    assert attention._xformers_computes(torch.device("cpu"), torch.float32) is works

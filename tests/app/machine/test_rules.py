"""Computers as they are at home, and what is said of each before anything is loaded."""

import ast
import inspect
import json
import re
import string
from dataclasses import replace

import pytest

from diffusers_helper.errors import MachineError
from diffusers_helper.models import streamed_transformer as streamed_models
from tests.support.machine_samples import COMPUTERS, GIB, RTX_3060, RTX_4060, asked, card, pc, ram
from webui.eichi_utils.machine import rules as machine_rules
from webui.eichi_utils.machine.check import line_text
from webui.eichi_utils.machine.facts import MachineFacts, TorchFacts
from webui.eichi_utils.machine.rules import check_machine
from webui.eichi_utils.text.translations import LOCALES, Translator

WORDS = json.loads((LOCALES / "en.json").read_text("utf-8"))


def told(facts: MachineFacts) -> list[str]:
    return [f"{line.code}.{line.level}" for line in check_machine(facts)]


@pytest.mark.parametrize("name", COMPUTERS)
def test_what_is_not_good_of_a_computer_is_told(name):
    facts, expected = COMPUTERS[name]
    assert [key for key in told(facts) if not key.endswith(".good")] == expected


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("RTX 3060 12 GB", "card.good"),
        ("driver of CUDA 12.2 for CUDA 12.8", "driver.good"),
        ("16 GB of RAM, fast disk", "ram_and_disk.good"),
        ("24 GB of VRAM, 16 GB of RAM, slow disk", "ram.good"),
        ("page file off, 64 GB", "page_file_off.good"),
        ("xformers broken, not needed", "attention_flash.good"),
        ("xformers works", "attention_xformers.good"),
        ("no xformers, no flash attention", "attention_plain.good"),
        ("models missing", "models_disk.good"),
        ("models cut short, room for the rest", "models_disk.good"),
    ],
)
def test_what_is_good_is_told_too(name, line):
    assert line in told(COMPUTERS[name][0])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("all is good", "attention"),  # nobody asked PyTorch
        ("Linux", "page_file"),
        ("a CUDA of the future", "driver"),
        ("VRAM that is not told", "vram"),
        ("no card", "vram"),
        ("no card and no models", "models_disk"),
        ("torch cannot be found", "torch"),
    ],
)
def test_nothing_is_said_of_what_is_not_known_or_does_not_matter(name, code):
    assert not [key for key in told(COMPUTERS[name][0]) if key.startswith(code)]


@pytest.mark.parametrize("on_windows", [True, False])
@pytest.mark.parametrize(
    ("cuda", "driver", "level"),
    [
        ((12, 8), (528, 33), "good"),
        ((12, 8), (528, 2), "fails"),
        ((12, 8), (516, 94), "fails"),
        ((13, 2), (580, 65, 6), "good"),
        ((13, 2), (579, 99), "fails"),
        ((11, 8), (452, 39), "good"),
    ],
)
def test_a_driver_must_be_as_new_as_the_major_version_of_cuda(cuda, driver, level, on_windows):
    if not on_windows and driver == (528, 2):
        level = "good"  # Linux' drivers of CUDA 12 begin with 525.60
    facts = pc(card=replace(RTX_3060, driver=driver), torch=TorchFacts("2", cuda), on_windows=on_windows)
    assert f"driver.{level}" in told(facts)


@pytest.mark.parametrize(
    ("kernels", "capability", "runs"),
    [
        (("sm_80",), (8, 9), True),
        (("sm_86",), (8, 0), False),
        (("sm_90",), (12, 0), False),
        (("sm_90a",), (9, 0), True),
        (("sm_100f",), (10, 3), True),
        (("sm_120a",), (12, 1), False),
        (("sm_80", "compute_90"), (12, 0), True),
        (("compute_90a",), (12, 0), False),
        (("compute_120",), (8, 9), False),
        (("gfx1100", ""), (8, 9), False),
    ],
)
def test_which_kernels_run_on_a_card(kernels, capability, runs):
    error = None if runs else MachineError("card_not_supported", card="x", torch="2")
    # a card that has already computed needs no look at the kernels
    facts = asked(None, replace(RTX_4060, capability=capability), kernels=kernels, error=error)
    assert ("torch_no_kernels.fails" in told(facts)) is not runs


def test_a_limit_of_vram_makes_more_of_the_models_pass_by():
    facts = pc(card=card("RTX 4090", (8, 9), 24, 23.5), memory=ram(15.7, 10))
    assert "ram.good" in told(facts)
    assert "ram_and_disk.good" in told(replace(facts, memory_limit=8 * GIB))


def test_of_weights_with_8_bits_half_as_much_passes_by():
    facts = pc(memory=ram(15.7, 8))
    lines = {line.code: line for line in check_machine(replace(facts, eight_bit=True))}
    assert lines["ram_and_disk"].values["streamed"] == "8"
    few = pc(memory=ram(23.7, 15))
    assert "ram_and_disk.good" in told(few)
    assert "ram.good" in told(replace(few, eight_bit=True))


@pytest.mark.parametrize("name", COMPUTERS)
def test_every_line_has_a_sentence_and_what_is_not_good_one_thing_to_do(name):
    words = Translator("en")
    for line in check_machine(COMPUTERS[name][0]):
        text, advice = line_text(line, words)
        assert (advice is None) is (line.level == "good")
        assert not re.search(r"[{}]|None", text + (advice or ""))


@pytest.mark.parametrize("name", COMPUTERS)
def test_the_sentences_use_all_values_of_a_line(name):
    for line in check_machine(COMPUTERS[name][0]):
        key = f"check.{line.code}.{line.level}"
        both = WORDS[key] + WORDS.get(f"{key}.do", "")
        assert {field for _, field, _, _ in string.Formatter().parse(both) if field} == set(line.values), key


def test_there_is_a_computer_for_every_line_and_no_sentence_without_one():
    tested = {f"check.{key}" for facts, _ in COMPUTERS.values() for key in told(facts)}
    written = {key.removesuffix(".do") for key in WORDS if key.startswith("check.")}
    written = {key for key in written if not key.startswith(("check.mark.", "check.result."))}
    assert tested == written
    assert {key.split(".")[1] for key in written} == codes_in_the_rules()


def codes_in_the_rules() -> set[str]:
    """All that the rules can say: the texts that begin the calls which make lines."""
    tree = ast.parse(inspect.getsource(machine_rules))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
    made = (call for call in calls if re.match(r"\(?(good|slow|fails|level)\b", ast.unparse(call.func)))
    return {call.args[0].value for call in made if isinstance(call.args[0], ast.Constant)}


def test_the_numbers_are_those_of_the_engine():
    assert streamed_models.VAE_BYTES + streamed_models.SPARE_BYTES == machine_rules.VRAM_RESERVED

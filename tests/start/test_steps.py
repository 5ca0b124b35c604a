"""The scripts start.bat and start.sh search the same Pythons and have the same words."""

import ast
import re
import string
import sys
from pathlib import Path

import pytest

from scripts import check_python, install_once, make_environment
from scripts.sentences import SENTENCES

ROOT = Path(__file__).resolve().parents[2]
BAT = (ROOT / "start.bat").read_text("utf-8")
GET_BAT = (ROOT / "scripts" / "get_python.bat").read_text("utf-8")
FUNCTIONS = (ROOT / "scripts" / "environment.sh").read_text("utf-8")
SETTINGS = (ROOT / "environment2.bat").read_text("utf-8")
VERSIONS = ["3.14", "3.13", "3.12", "3.11", "3.10"]


def code_of(text: str) -> str:
    """A script without its comments."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"\s*(@?rem\b|#)", line))


def test_both_search_the_supported_pythons():
    newest, oldest = check_python.NEWEST[1], check_python.OLDEST[1]
    assert [f"3.{minor}" for minor in range(newest, oldest - 1, -1)] == VERSIONS
    assert f"({' '.join(VERSIONS)}) do if not defined python call :try py -%%v" in BAT
    assert " ".join(f"python{version}" for version in VERSIONS) in FUNCTIONS
    assert BAT.count("(314 313 312 311 310)") == 2
    for text in (FUNCTIONS, (ROOT / "scripts" / "no_python.txt").read_text("utf-8")):
        assert "、".join(reversed(VERSIONS)) in text
        assert "Python 3.10, 3.11, 3.12, 3.13 or 3.14" in text


def test_both_clear_another_pythons_variables():
    for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        assert f'set "{name}="\n' in BAT
        assert re.search(rf"^unset .*\b{name}\b", FUNCTIONS, re.MULTILINE)


def test_start_bat_runs_in_a_folder_of_any_name():
    code = code_of(BAT)
    labels, alone, last = BAT.partition(":no_files\n")
    assert labels.isascii()  # after other letters, cmd can lose its place in the file
    assert alone and ":" not in last
    assert "DisableDelayedExpansion" in code
    assert code.count("%~dp0") == 1
    assert GET_BAT.isascii()
    code += code_of(GET_BAT)
    for place in re.finditer(r"%root%", code):
        before = code[: place.start()].rpartition("\n")[2]
        assert before.count('"') % 2 == 1, before  # in quotes
        assert "call" not in before  # which would expand a % in it once more
        assert "(" not in before  # a bracket in it would end the block
    assert "*.bat text eol=crlf" in (ROOT / ".gitattributes").read_text("utf-8")


def test_each_setting_is_off_and_explained_in_two_languages():
    lines = [line for line in SETTINGS.splitlines() if line]
    assert [line for line in lines if not line.startswith("rem ")] == ["@echo off"]
    names = []
    for number, line in enumerate(lines):
        if setting := re.fullmatch(r'rem set "([A-Z_]+)=.+"', line):
            japanese, english = lines[number - 2 : number]
            assert re.search(r"[ぁ-ん]", japanese)
            assert english.isascii()
            names.append(setting[1])
    sources = BAT + Path(install_once.__file__).read_text("utf-8")
    own = [name for name in names if name in sources]
    assert own == ["START_OPTIONS", "PYTHON_FOR_VENV", "TORCH_INDEX", "TORCH_VERSION"]
    assert [name for name in names if name not in own] == ["HF_HOME", "HTTPS_PROXY"]  # the libraries' own


@pytest.mark.parametrize("code", SENTENCES)
def test_a_message_has_the_same_values_in_both_languages(code):
    japanese, english = SENTENCES[code]
    fields = [
        {field for _, field, _, _ in string.Formatter().parse(text) if field} for text in (japanese, english)
    ]
    assert fields[0] == fields[1]
    assert re.search(r"[ぁ-ん]", japanese)
    assert english.isascii()


def test_every_message_is_used():
    sources = "".join(Path(module.__file__).read_text("utf-8") for module in (install_once, make_environment))
    reasons = ("fits", "no_card", "no_answer", "card_too_old", "driver_too_old")
    unsaid = [code for code in SENTENCES if f'"{code}"' not in sources]
    assert sorted(unsaid) == sorted(f"torch_{reason}" for reason in reasons)


@pytest.mark.parametrize(
    ("version", "size", "can"),
    [
        ((2, 7), 63, False),
        ((3, 9), 63, False),
        ((3, 10), 63, True),
        ((3, 14), 63, True),
        ((3, 15), 63, False),
        ((3, 12), 31, False),
    ],
)
def test_a_python_can_run_the_app_if_torch_is_built_for_it(monkeypatch, version, size, can):
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    monkeypatch.setattr(sys, "maxsize", 2**size - 1)
    assert (check_python.check(in_environment=False) == 0) is can


@pytest.mark.parametrize(("module", "in_environment"), [("pip", True), ("ensurepip", False), ("venv", False)])
def test_a_python_without_pip_or_venv_is_not_supported(monkeypatch, module, in_environment):
    monkeypatch.setitem(sys.modules, module, None)
    assert check_python.check(in_environment) == check_python.LACKS_MODULE
    assert check_python.check(not in_environment) == 0


def test_any_python_can_run_the_check():
    text = Path(check_python.__file__).read_text("ascii")
    tree = ast.parse(text, feature_version=(3, 3))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.arg) and node.annotation]


def test_uv_is_pinned_by_address_and_checksum_for_both_systems():
    lines = [line.split() for line in (ROOT / "scripts" / "uv.txt").read_text("ascii").splitlines()]
    assert [system for system, _, _ in lines] == ["windows", "linux"]
    for system, checksum, address in lines:
        assert re.fullmatch(r"[0-9a-f]{64}", checksum)
        wheel = {"windows": "win_amd64", "linux": "manylinux_2_17_x86_64.manylinux2014_x86_64"}[system]
        pattern = r"https://files\.pythonhosted\.org/packages/[0-9a-f/]{66}/uv-[\d.]+-py3-none-" + re.escape(
            wheel
        )
        assert re.fullmatch(pattern + r"\.whl", address)


def test_both_name_the_same_reasons_why_no_python_came():
    """Each reason is a file of two sentences, Japanese and English."""
    of_bat = set(re.findall(r"python_(\w+)\.txt", GET_BAT))
    of_sh = set(re.findall(r"\b(?:tell|refuse) (\w+)", FUNCTIONS))
    files = {path.stem.removeprefix("python_"): path for path in (ROOT / "scripts").glob("python_*.txt")}
    assert of_bat == of_sh == set(files)
    for path in files.values():
        japanese, english = path.read_text("utf-8").splitlines()
        assert re.search(r"[ぁ-ん]", japanese) and english.isascii()
    codes = re.search(r"for %%e in \(([\d ]+)\)", GET_BAT)
    assert codes is not None and " | ".join(codes[1].split()) + ") refuse proxy" in FUNCTIONS

"""The documents say what is true of the code: links, commands, options, keys, names of controls."""

import dataclasses
import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffusers_helper.request import GenerationRequest, Keyframe
from diffusers_helper.version import VERSION
from webui.eichi_utils import terminal
from webui.eichi_utils.command_line import parse_arguments
from webui.eichi_utils.form import FIELDS
from webui.eichi_utils.page.api import add_api
from webui.eichi_utils.text.translations import LANGUAGES, LOCALES

ROOT = Path(__file__).resolve().parents[1]
DOCS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"]
DOCS += [ROOT / "demo_models" / "README.md", ROOT / "benchmarks" / "log.md"]
GUIDES = {language: ROOT / "docs" / f"guide.{language}.md" for language in LANGUAGES}
REQUEST = ROOT / "docs" / "request.md"
TEST_OPTIONS = {"--all"}
"""The options of run_tests.sh."""
HISTORY = {ROOT / "benchmarks" / "log.md", ROOT / "CHANGELOG.md"}
"""The documents that may name what is gone."""
BUTTONS = "start stop open again continue take_settings reset apply_preset delete_preset save_preset browse"
OTHERS = "start_image end_image preset preset_name startup_preset use_keyframes copy_keyframes presets panel"


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def prose(path: Path) -> str:
    """The text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def options() -> set[str]:
    """The options of the command line."""
    return {f"--{name.replace('_', '-')}" for name in vars(parse_arguments([]))}


def table(path: Path, heading: str, after: str = "") -> dict[str, list[str]]:
    """The rows of the first table below a heading, and below the words `after`, by their first cells."""
    part = text_of(path).partition(f"## {heading}\n")[2].partition("\n## ")[0]
    part = part[part.index(after) :]
    block = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)
    assert block, heading
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in block[0].splitlines()[2:]
    ]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(path):
    if path in HISTORY:
        return
    for line in re.findall(r"`([^`\n]*)`|^((?:bash|python|start\.bat) .*)$", text_of(path), re.MULTILINE):
        line = "".join(line)
        for file in re.findall(r"(?:bash|python) ([\w./]+\.(?:sh|py))", line):
            assert (ROOT / file).exists(), line
        for module in re.findall(r"python -m ((?:benchmarks|demo_models|docs)[\w.]*)", line):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), line
        if line.startswith(("start.bat", "bash start.sh", "--")):
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line))
            assert named <= options() | TEST_OPTIONS, line
        for request in re.findall(r"--headless (examples/\S+)", line):
            assert (ROOT / request).exists(), line


def test_each_option_is_explained():
    rows = table(REQUEST, "The command line")
    named = {option for cell in rows for option in re.findall(r"--[a-z-]+", cell)}
    assert named == options()


def test_the_keys_of_a_request_are_those_of_the_code():
    rows = table(REQUEST, "Keys of a request")
    fields = {field.name: field.default for field in dataclasses.fields(GenerationRequest)}
    assert {cell.strip("`") for cell in rows} == fields.keys()
    for name, default in fields.items():
        stated = rows[f"`{name}`"][0]
        if isinstance(default, bool | int | float):
            assert json.loads(stated) == default, name
        else:
            assert stated in ("none", "empty", "random", "null"), name
    keyframe = table(REQUEST, "Keys of a request", "A keyframe")
    assert {cell.strip("`") for cell in keyframe} == {field.name for field in dataclasses.fields(Keyframe)}


def test_the_exit_statuses_are_those_of_the_code():
    known = {getattr(terminal, name) for name in dir(terminal) if name.startswith("EXIT_")}
    assert {int(status) for status in table(REQUEST, "Exit status")} == known


def test_the_endpoints_are_those_of_the_code(monkeypatch):
    made = Mock()
    monkeypatch.setattr("webui.eichi_utils.page.api.gr.api", made)
    add_api(Mock())
    known = {call.kwargs["api_name"] for call in made.call_args_list}
    assert {cell.strip("`/") for cell in table(REQUEST, "API")} == known


@pytest.mark.parametrize("language", LANGUAGES)
def test_guides_name_the_controls_as_the_page_does(language):
    words = json.loads((LOCALES / f"{language}.json").read_text("utf-8"))
    named = set(re.findall(r"\*\*(.+?)\*\*", text_of(GUIDES[language])))
    shown = {re.sub(r"[（(]?\{.*", "", text).strip() for text in words.values()}
    assert named <= shown, named - shown
    keys = [f"page.{name}" for name in (*FIELDS, *BUTTONS.split(), *OTHERS.split())]
    controls = {words[key] for key in keys if key in words}
    assert len(controls) > 35
    assert controls <= named, controls - named


@pytest.mark.parametrize("language", LANGUAGES)
def test_guides_have_the_same_parts(language):
    shape = [len(mark) for mark in re.findall(r"^(#+) ", text_of(GUIDES["ja"]), re.MULTILINE)]
    assert [len(mark) for mark in re.findall(r"^(#+) ", text_of(GUIDES[language]), re.MULTILINE)] == shape


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.json")), ids=lambda path: path.name)
def test_the_examples_are_requests(path):
    GenerationRequest.from_dict(json.loads(text_of(path)), path.parent)
    assert path.name in text_of(path.parent / "README.md")


def test_the_changelog_has_this_version():
    assert re.search(rf"^## {re.escape(VERSION)}\b", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)

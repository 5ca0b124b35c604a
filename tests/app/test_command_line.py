"""The command line: what it takes, `--help`, and wrong ones in one line of the user's language."""

import subprocess
import sys
import unicodedata

import pytest

from diffusers_helper.version import VERSION
from webui.eichi_utils.command_line import GROUPS, ROOT, STARTER, parse_arguments
from webui.eichi_utils.text.translations import LANGUAGES, Translator

LOGIN = "mia:p\u00e4ssword:1"
WIDTH = 100
"""Columns of a terminal in which no line of `--help` breaks."""
WRONG = {
    "--login=mia": "login_wrong",
    "--login=mia:short": "login_wrong",
    "--login=:longenough": "login_wrong",
    "--port=0": "port_wrong",
    "--port=65536": "port_wrong",
    "--port=x": "port_wrong",
    "--port=-1": "port_wrong",
    "--port=\u0663": "port_wrong",
    "--port": "value_needed",
    "--headless": "value_needed",
    "--vram-gb=0": "vram_gb_wrong",
    "--vram-gb=nan": "vram_gb_wrong",
    "--lang=de": "choice_wrong",
    "--device=tpu": "choice_wrong",
    "--demo=1": "takes_no_value",
    "--prot=80": "unknown_near",
    "--dem": "unknown_near",
    "cat.png": "unknown",
    "--demo --models=x": "demo_or_models",
}
"""The texts `cli.<key>` by the arguments that they refuse."""


@pytest.fixture
def refuse(capsys, monkeypatch):
    """Parses a wrong command line; returns the line that is shown."""

    def refuse(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            parse_arguments([*arguments])
        assert ended.value.code == 2
        shown = capsys.readouterr()
        assert not shown.out
        (line,) = shown.err.splitlines()
        return line

    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv(STARTER, "start.bat")
    return refuse


def test_a_login_is_split_at_the_first_colon():
    assert parse_arguments(["--login", LOGIN]).login == ("mia", "p\u00e4ssword:1")


@pytest.mark.parametrize("arguments", WRONG)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_command_line_is_one_line_in_the_users_language(refuse, arguments, language):
    line = refuse(*arguments.split(), "--lang", language) if "--lang" not in arguments else refuse(arguments)
    is_english = "--headless" in arguments
    words = Translator("en" if is_english else "ja" if "--lang" in arguments else language)
    values = dict.fromkeys(("value", "choices", "option", "near", "command"), "|")
    begin, *parts = words(f"cli.{WRONG[arguments]}", **values).split("|")
    assert line.startswith(f"start.bat: {begin}")
    assert all(part in line for part in parts)


def test_a_mistyped_option_and_an_unknown_one_name_what_there_is(refuse):
    assert "--port" in refuse("--prot=80").partition("--prot")[2]
    assert "start.bat --help" in refuse("cat.png")
    assert "--device" not in refuse("--device=tpu", "--lang=en").removeprefix("start.bat: tpu is not one of")


def test_headless_errors_are_in_english(refuse, monkeypatch):
    monkeypatch.setenv("LC_ALL", "ja_JP.UTF-8")
    line = refuse("--headless", "cat.json", "--vram-gb", "x")
    assert Translator("en")("cli.vram_gb_wrong", value="x") in line


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chosen_by", ["option", "system"])
def test_help_is_short_and_in_the_users_language(language, chosen_by, monkeypatch, capsys):
    names = {"ja": "ja_JP.UTF-8", "en": "en_US.UTF-8", "zh-tw": "zh_TW.UTF-8"}
    monkeypatch.setenv("LC_ALL", names[language] if chosen_by == "system" else "C")
    monkeypatch.setenv(STARTER, "bash start.sh")
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--help", *([] if chosen_by == "system" else ["--lang", language])])
    lines, words = capsys.readouterr().out.splitlines(), Translator(language)
    assert ended.value.code == 0
    assert lines[:2] == [words("cli.description"), words("cli.usage", command="bash start.sh")]
    assert [line for line in lines if line in map(words, (f"cli.group_{name}" for name in GROUPS))]
    assert len(lines) <= 40
    assert max(map(columns, lines)) <= WIDTH
    options = [line.split()[0] for line in lines if line.startswith("  ")]
    assert options == sorted(set(options), key=options.index)
    assert {option[2:].replace("-", "_") for option in options} == vars(parse_arguments([])).keys()


def columns(line: str) -> int:
    """The columns of a line on a terminal, where a Japanese letter takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def test_the_version_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"Endframe Ichi {VERSION}\n"


def test_start_bat_says_how_it_was_called():
    lines = (ROOT / "start.bat").read_text("utf-8").splitlines()
    assert f'set "{STARTER}=start.bat"' in lines
    assert lines.index(f'set "{STARTER}=start.bat"') + 1 == lines.index(
        r'"%root%venv\Scripts\python.exe" "%root%webui\endframe_ichi.py" --inbrowser %START_OPTIONS% %*'
    )


def test_help_imports_no_library_and_names_the_script_where_nobody_else_does(monkeypatch):
    monkeypatch.delenv(STARTER, raising=False)
    program = (
        "import sys; from webui.eichi_utils.command_line import _Parser, Translator\n"
        "print(_Parser(Translator('en')).help_lines()[1])\n"
        "print([name for name in ('numpy', 'PIL', 'torch', 'tqdm') if name in sys.modules])"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert shown.splitlines() == ["Usage: python webui/endframe_ichi.py [options]", "[]"]

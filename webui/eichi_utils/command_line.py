"""The command line: its options, `--help` and refusals in the user's language.

Knows nothing of what the options do, and imports no library before `endframe_ichi.py` has prepared it.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

from diffusers_helper.version import VERSION

from .text.translations import LANGUAGES, Translator, system_language

ROOT = Path(__file__).resolve().parents[2]
MIN_PASSWORD = 8
STARTER = "ENDFRAME_ICHI_STARTER"
"""The variable by which start.sh and start.bat say how people call them."""
DEVICES = ("auto", "cuda", "cpu")
COLUMN = 26
"""The column in which `--help` explains an option."""


class _WrongError(Exception):
    """An argument that cannot be used; its text is a sentence for the user."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line. `--help`, `--version` and a wrong one end the program (status 0 and 2)."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _Parser(_words_of(given))
    try:
        options = parser.parse(given)
    except _WrongError as wrong:
        _end([f"{parser.prog}: {wrong}"], sys.stderr, status=2)
    if options.help:
        _end(parser.help_lines(), sys.stdout)
    if options.version:
        _end([f"Endframe Ichi {VERSION}"], sys.stdout)
    return options


def _end(lines: list[str], stream: TextIO, status: int = 0) -> NoReturn:
    from .terminal import write_line

    for line in lines:
        write_line(line, stream)
    sys.exit(status)


def program_name() -> str:
    """Return the command with which the user has started the app."""
    return os.environ.get(STARTER) or "python webui/endframe_ichi.py"


class _Parser(argparse.ArgumentParser):
    """A parser whose words are those of `locales/`."""

    def __init__(self, words: Translator) -> None:
        super().__init__(prog=program_name(), add_help=False, allow_abbrev=False, exit_on_error=False)
        self._words, self._groups = words, list[tuple[str, list[argparse.Action]]]()
        for group, add in GROUPS.items():
            self._groups.append((words(f"cli.group_{group}"), []))
            add(self._option, words)

    def _option(self, *names: str, **values: Any) -> None:
        self._groups[-1][1].append(self.add_argument(*names, **values))

    def parse(self, given: list[str]) -> argparse.Namespace:
        """Return the options; raises `_WrongError`."""
        try:
            options, unknown = self.parse_known_args(given)
        except argparse.ArgumentError as error:  # all others are ours
            action = next(
                a for a in self._actions if error.argument_name in ("/".join(a.option_strings), a.dest)
            )
            key = "cli.takes_no_value" if action.nargs == 0 else "cli.value_needed"
            raise _WrongError(self._words(key, option=action.option_strings[0])) from error
        if unknown:
            raise _WrongError(self._unknown_text(unknown[0]))
        if options.demo and options.models is not None:
            raise _WrongError(self._words("cli.demo_or_models"))
        return options

    def _unknown_text(self, argument: str) -> str:
        known = [name for action in self._actions for name in action.option_strings]
        if near := difflib.get_close_matches(argument.partition("=")[0], known, 1):
            return self._words("cli.unknown_near", option=argument[:40], near=near[0])
        return self._words("cli.unknown", option=argument[:40], command=f"{self.prog} --help")

    def help_lines(self) -> list[str]:
        """Return the lines of `--help`."""
        words = self._words
        lines = [words("cli.description"), words("cli.usage", command=self.prog)]
        for title, actions in self._groups:
            lines += ["", title]
            for action in actions:
                value = f" {action.metavar}" if action.nargs != 0 else ""
                name = f"  {action.option_strings[0]}{value}"
                lines.append(f"{name:{COLUMN}}{words(f'cli.{action.dest}')}")
        return lines


def _add_tasks(add: Callable[..., None], _words: Translator) -> None:
    add("--headless", metavar="REQUEST", type=Path)
    for name in ("--download", "--check", "--report", "--version"):
        add(name, action="store_true")
    add("--help", "-h", action="store_true")


def _add_page(add: Callable[..., None], words: Translator) -> None:
    add("--lang", metavar="ja|en|zh-tw", type=partial(_choice, words, LANGUAGES))
    add("--port", metavar="PORT", type=partial(_port, words), default=8001)
    add("--inbrowser", action="store_true")
    add("--server", metavar="ADDRESS", default="127.0.0.1")
    add("--login", metavar="NAME:PASSWORD", type=partial(_login, words))
    add("--share", action="store_true")
    add("--root-path", metavar="/PATH", default="")


def _add_models(add: Callable[..., None], words: Translator) -> None:
    add("--demo", action="store_true")
    add("--models", metavar="DIR", type=Path)
    add("--eight-bit", action="store_true")
    add("--vram-gb", metavar="GB", type=partial(_gigabytes, words))
    add("--device", metavar="auto|cuda|cpu", type=partial(_choice, words, DEVICES), default="auto")


def _add_files(add: Callable[..., None], _words: Translator) -> None:
    add("--output", metavar="DIR", type=Path)
    add("--home", metavar="DIR", type=Path, default=ROOT / "webui")
    add("--cache", metavar="DIR", type=Path)
    add("--verbose", action="store_true")


def _add_headless(add: Callable[..., None], _words: Translator) -> None:
    add("--name", metavar="NAME")
    add("--save-latents", action="store_true")


GROUPS = {
    "task": _add_tasks,
    "page": _add_page,
    "models": _add_models,
    "files": _add_files,
    "headless": _add_headless,
}
"""The functions that add the options of each group, in the order of `--help`; its title is
`cli.group_<name>`."""


def _words_of(arguments: list[str]) -> Translator:
    """Return the texts of `--help` and of a wrong command line, before it is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--lang", nargs="?")
    parser.add_argument("--headless", nargs="?", const="")
    known, _ = parser.parse_known_args(arguments)
    if known.headless is not None:
        return Translator("en")
    return Translator(known.lang if known.lang in LANGUAGES else system_language())


def _choice(words: Translator, choices: tuple[str, ...], text: str) -> str:
    if text not in choices:
        raise _WrongError(words("cli.choice_wrong", value=text[:20], choices=", ".join(choices)))
    return text


def _gigabytes(words: Translator, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise _WrongError(words("cli.vram_gb_wrong", value=text[:20]))
    return value


def _port(words: Translator, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise _WrongError(words("cli.port_wrong", value=text[:20]))
    return int(text)


def _login(words: Translator, text: str) -> tuple[str, str]:
    name, _, password = text.partition(":")
    if not name or len(password) < MIN_PASSWORD:
        raise _WrongError(words("cli.login_wrong"))
    return name, password

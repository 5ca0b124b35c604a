"""The command, run in this process with the tiny models."""

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffusers_helper.events import Event, StepDone
from tests.support.tiny import GOLDEN, MODELS
from webui.eichi_utils.jobs.job import Progress
from webui.eichi_utils.progress_line import ProgressLine
from webui.endframe_ichi import main

SMALL = {
    "start_image": str(GOLDEN / "one_second" / "start.png"),
    "prompt": "A cat.",
    "seed": 1,
    "steps": 1,
    "seconds": 0.5,
    "section_seconds": 0.5,
    "width": 64,
    "height": 64,
}
"""The values of a request that is made in a second or two."""


@dataclass(frozen=True)
class Answer:
    """The result of one run: exit status, what was said on the error stream, the files left behind."""

    status: int
    lines: tuple[str, ...]
    files: tuple[str, ...]


class Command:
    """`--headless` with tiny models, a small request and a fresh output folder, unless told otherwise."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture):
        self.folder = folder
        self.output = folder / "output"
        self.home = folder / "home"
        self._capsys = capsys
        self._caplog = caplog

    def request(self, values: object) -> Path:
        """A request file: a dictionary is laid over the small request, bytes are written as they are."""
        path = self.folder / "request.json"
        if isinstance(values, dict):
            values = json.dumps(SMALL | values)
        path.write_bytes(values if isinstance(values, bytes) else str(values).encode())
        return path

    def __call__(
        self, request: object = None, *options: str, models: Path = MODELS, output: Path | None = None
    ) -> Answer:
        output = self.output if output is None else output
        path = request if isinstance(request, Path) else self.request({} if request is None else request)
        arguments = ["--headless", path, "--models", models, "--output", output, "--name", "video"]
        arguments += ["--cache", self.folder / "cache", "--home", self.home, "--device", "cpu", *options]
        self._caplog.clear()
        status = main([str(argument) for argument in arguments])
        shown = [record for record in self._caplog.records if record.levelno >= logging.ERROR]
        assert not shown, "a terminal shows these as well"
        return Answer(status, tuple(self._capsys.readouterr().err.splitlines()), files_below(output))

    def refuse(self, *arguments: object, status: int = 2, begun: bool = False, **named: Path) -> str:
        """Run the command, which must fail with one line and leave nothing; returns its sentences.

        Args:
            begun: the work goes on for a while, so what is planned and done is told before the sentence.
        """
        answer = self(*arguments, **named)  # type: ignore[arg-type]
        assert answer.status == status, answer.lines
        *before, sentence = answer.lines
        assert sentence.startswith("Error: ")
        assert sentence.endswith((".", "?"))
        assert sentence.replace("...", "").count(". ") <= 2, "what is wrong, and what to do"
        assert "An unexpected error occurred" not in sentence
        progress = ("Making ", "Section ", "section ") if begun else ()
        assert all(line.startswith(progress) for line in before), before
        assert answer.files == ()
        return sentence.removeprefix("Error: ")


def at_steps(monkeypatch: pytest.MonkeyPatch, act: Callable[[StepDone], object]) -> None:
    """Calls `act` with each StepDone as the terminal shows it."""

    def show(_line: ProgressLine, event: Event, _progress: Progress) -> None:
        if isinstance(event, StepDone):
            act(event)

    monkeypatch.setattr(ProgressLine, "show", show)


def files_below(folder: Path) -> tuple[str, ...]:
    """The files in a folder and below, by their names in it; none where there is no such folder."""
    with contextlib.suppress(OSError):  # a name that no folder can have
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return tuple(sorted(found))
    return ()
